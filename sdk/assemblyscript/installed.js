// Exits 0 if the AssemblyScript compiler is installed here in the version that
// package.json pins, else 1.
const { readFileSync } = require("node:fs");
const read = (file) => JSON.parse(readFileSync(`${__dirname}/${file}`, "utf8"));
try {
  const want = read("package.json").devDependencies.assemblyscript;
  process.exitCode = read("node_modules/assemblyscript/package.json").version === want ? 0 : 1;
} catch {
  process.exitCode = 1;
}
