// What the linter can't check: no modules that import each other, no names that say nothing.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const WORDS = /\b[#_]*(found|told|asked|given|known|kept|beside|own|way|place|says|aside)\b/gi;
const IMPORT = /\b(?:from|import)\s*\(?\s*"(\.[^"]+\.ts)"/g;

const read = (folder) =>
  readdirSync(folder, { recursive: true })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => [join(folder, file), readFileSync(join(folder, file), "utf8")]);
const sources = read("src");
const problems = [];

// Imports of types are counted too: modules in a circle can't be read one after the other.
const imports = new Map(
  sources.map(([file, text]) => [file, [...text.matchAll(IMPORT)].map(([, path]) => join(file, "..", path))]),
);
const done = new Set();

function follow(file, path) {
  if (path.includes(file)) {
    problems.push(`imports in a circle: ${[...path.slice(path.indexOf(file)), file].join(" > ")}`);
  } else if (!done.has(file)) {
    for (const next of imports.get(file) ?? []) follow(next, [...path, file]);
    done.add(file);
  }
}

for (const file of imports.keys()) follow(file, []);

/** The code without its comments and prose; keys, class names and what is computed inside a text stay. */
const code = (text) =>
  text
    .replace(/\/\*[\s\S]*?\*\/|(?<![:"])\/\/.*/g, "")
    .replace(/"(?:[^"\\\n]|\\.)*"/g, (string) => (/^"[\w-]+"$/.test(string) ? string : '""'))
    .replace(/`[^`]*`/g, (template) => (template.match(/\$\{[^}]*\}/g) ?? []).join(" "));

for (const [file, text] of [...sources, ...read("tests")]) {
  for (const [name] of code(text).matchAll(WORDS)) problems.push(`${file}: ${name} doesn't say what it is`);
}

for (const problem of problems) console.error(problem);
if (problems.length > 0 || sources.length === 0) process.exit(1);
