// The views in one ESM file with one style sheet, and the display settings' own, into the Python package.
import { statSync } from "node:fs";
import * as esbuild from "esbuild";

const watch = process.argv.includes("--watch");
const outdir = "../saliency_widgets/widgets/static";

const options = {
  entryPoints: ["src/heatmap.ts", "src/heatmap.css", "src/display.ts"],
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
  for (const name of ["heatmap.js", "heatmap.css", "display.js"]) {
    console.log(`${name}  ${(statSync(`${outdir}/${name}`).size / 1000).toFixed(1)} kB`);
  }
}
