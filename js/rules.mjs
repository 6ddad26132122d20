// What the linter can't check: no names that say nothing.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const WORDS = /\b[#_]*(found|told|asked|given|known|kept|beside|own|way|place|says|aside)\b/gi;

const read = (folder) =>
  readdirSync(folder, { recursive: true })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => [join(folder, file), readFileSync(join(folder, file), "utf8")]);
const sources = read("src");
const problems = [];

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
