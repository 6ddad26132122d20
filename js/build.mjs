// Into the Python package: the views as one ESM file with its style sheet, and the same for a saved page.
import { statSync } from "node:fs";
import * as esbuild from "esbuild";

const watch = process.argv.includes("--watch");
const outdir = "../saliency_widgets/widgets/static";

const options = {
  entryPoints: ["heatmap.ts", "heatmap.css", "page.ts", "page.css"].map((name) => `src/${name}`),
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
  for (const name of ["heatmap.js", "heatmap.css", "page.js", "page.css"]) {
    console.log(`${name}  ${(statSync(`${outdir}/${name}`).size / 1000).toFixed(1)} kB`);
  }
}
