// Into the Python package: the views with their style sheet, the display settings, and what a saved page adds.
import { statSync } from "node:fs";
import { basename } from "node:path";
import * as esbuild from "esbuild";

const watch = process.argv.includes("--watch");
const SOURCES = ["views.ts", "views.css", "shell/display.ts", "page/page.ts", "page/page.css"];
const outdir = "../saliency_widgets/widgets/static";

const options = {
  entryPoints: SOURCES.map((source) => `src/${source}`),
  entryNames: "[name]",
  outdir,
  bundle: true,
  minify: !watch,
  format: "esm",
  target: ["es2022", "chrome110", "firefox110", "safari16.4"],
  charset: "utf8",
  legalComments: "none",
};

if (watch) {
  const context = await esbuild.context({ ...options, logLevel: "info" });
  await context.watch();
} else {
  await esbuild.build(options);
  for (const name of SOURCES.map((source) => basename(source).replace(/ts$/, "js"))) {
    console.log(`${name}  ${(statSync(`${outdir}/${name}`).size / 1000).toFixed(1)} kB`);
  }
}
