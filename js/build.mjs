// Into the Python package: the views with their style sheet, the display settings, and what a saved page adds.
import { statSync } from "node:fs";
import * as esbuild from "esbuild";

const watch = process.argv.includes("--watch");
const NAMES = ["heatmap.js", "heatmap.css", "display.js", "page.js", "page.css"];
const outdir = "../saliency_widgets/widgets/static";

const options = {
  entryPoints: NAMES.map((name) => `src/${name.replace(/js$/, "ts")}`),
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
  for (const name of NAMES) {
    console.log(`${name}  ${(statSync(`${outdir}/${name}`).size / 1000).toFixed(1)} kB`);
  }
}
