// Completes js/package-lock.json: run it after `npm install` changed the lock, if tests/test_house.py asks for it.
//
// npm leaves optional packages out of the lock when the registry it asks does not carry them, such as a linter's
// binaries for other systems. `npm ci` then finds the lock incomplete, everywhere. Their versions are pinned exactly by
// the package that wants them, and their systems are part of their names, so the entries can be written from that.
import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("../js/package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf8"));
const systems = /(android|darwin|freebsd|linux|win32)-(arm64|arm|ia32|x64)(?:-(musl|glibc|gnu))?$/;

for (const [owner, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`;
    if (lock.packages[key] || lock.packages[`${owner}/${key}`]) continue;
    const system = systems.exec(name);
    if (!system || !/^\d+\.\d+\.\d+$/.test(version)) {
      throw new Error(`${owner} wants ${name}@${version}, which cannot be completed from its name and version`);
    }
    const [, os, cpu, libc] = system;
    lock.packages[key] = {
      version,
      cpu: [cpu],
      ...(entry.dev ? { dev: true } : {}),
      ...(libc ? { libc: [libc === "gnu" ? "glibc" : libc] } : {}),
      ...(entry.license ? { license: entry.license } : {}),
      optional: true,
      os: [os],
      ...(entry.engines ? { engines: entry.engines } : {}),
    };
    console.log(`added ${name}@${version}`);
  }
}

lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
