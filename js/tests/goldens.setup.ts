// Python computes the reference results before the tests. Without Python the tests fail; they are not skipped.
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

export default function setup(): void {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const python = process.env.PYTHON || "../.venv/bin/python";
  execFileSync(python, ["tests/goldens.py"], { cwd: root, stdio: "inherit" });
}
