'use strict';
// Runs the tests of a package as `tape` does, which loads file after file into one process:
//
//     node runner.js FOLDER [NODE-OPTION...] FILE...
//
// With options the files are left to another node that has them, as in `node --test FILE...`.

const { spawnSync } = require('child_process');
const path = require('path');

const [folder, ...rest] = process.argv.slice(2);
const options = rest.filter((each) => each.startsWith('-'));
const files = rest.slice(options.length);

process.chdir(folder);
if (options.length > 0) {
  const { status, signal } = spawnSync(process.execPath, [...options, ...files], { stdio: 'inherit' });
  if (signal) console.error(`died of ${signal}`);
  process.exitCode = status ?? 1;
} else {
  for (const file of files) require(path.resolve(file));
}
