'use strict';
// The agent of a node template: warms Node up, waits for a program, and lets Node run it.
//
// Node loads it before its main script (--require), so what comes after it is what `node main.js` does: stack traces,
// exit codes and the choice between CommonJS and ES modules are Node's own. A template is frozen in the first read of
// the control descriptor; every fork returns from that read with a program of its own: a line with the lengths of head
// and source, the head (script path and arguments, each with a NUL at its end), the source. The script's file is there
// already. The agent writes `ready` when every generator of random numbers has been seeded again.
//
// What may not be warm: crypto.randomUUID() and crypto.randomInt() keep random bytes for later calls, and the first
// Math.random() of a context fixes its sequence. So nothing before the freeze calls them.

const fs = require('fs');
const Module = require('module');
const { isMainThread } = require('worker_threads');

const CONTROL = 3;
const MASK = (1n << 64n) - 1n;

const REHEARSAL = `
const fs = require('fs'), path = require('node:path');
class Shape { constructor(sides) { this.sides = sides; } get area() { return this.sides ** 2; } }
const text = (x) => \`\${x}, \${path.join('a', 'b')}\`;
console.log(1 + 1, text([1, 2].map((x) => x * 2)), { a: { b: new Map([[1, 2]]) } }, new Shape(2).area);
console.error('%s', new Error('x').stack.length);
fs.existsSync('/tmp');
async function later() { await null; }
later();
`;

function warmUp(names, script) {
  for (const name of names) require(name);
  globalThis.fetch; globalThis.URL; globalThis.TextEncoder; globalThis.AbortController; globalThis.structuredClone;
  // Run a program as Node is going to run the real one, so that what this needs at its first time is there. What it
  // writes is the template's, which nobody reads.
  fs.writeFileSync(script, REHEARSAL);
  Module.runMain(script);
  delete require.cache[script];
  fs.unlinkSync(script);
  delete process.mainModule;
}

// ------------------------------------------------------------------------------------------------ random numbers

// V8 seeds Math.random() of every new context, and identity hashes, from one generator of the isolate
// (v8/src/base/utils/random-number-generator.cc): its seed and 128 bits of state, side by side on the C++ heap. With
// the seed known, the state must be what so many steps make of it; what is found so can be nothing else.
function findGenerator(seed) {
  const heap = fs.readFileSync('/proc/self/maps', 'latin1').split('\n').find((line) => line.endsWith('[heap]'));
  if (!heap) throw new Error('no [heap]');
  const [start, end] = heap.split(' ')[0].split('-').map((address) => parseInt(address, 16));
  const memory = Buffer.alloc(end - start);
  const file = fs.openSync('/proc/self/mem', 'r');
  for (let done = 0; done < memory.length;) {
    done += fs.readSync(file, memory, done, Math.min(memory.length - done, 1 << 20), start + done);
  }
  fs.closeSync(file);
  const needle = Buffer.alloc(8);
  needle.writeBigInt64LE(BigInt(seed));
  const found = [];
  for (let at = memory.indexOf(needle); at >= 0; at = memory.indexOf(needle, at + 1)) {
    if (at % 8 === 0 && at + 24 <= memory.length &&
        isStateOf(BigInt(seed), memory.readBigUInt64LE(at + 8), memory.readBigUInt64LE(at + 16))) {
      found.push(start + at + 8);
    }
  }
  if (found.length === 0) throw new Error("V8's generator of random numbers was not found");
  return found;
}

function isStateOf(seed, first, second) {
  let state0 = murmurHash3(seed);
  let state1 = murmurHash3(~state0 & MASK);
  for (let step = 0; step < 20000; step++) {
    if (state0 === first && state1 === second) return true;
    let x = state0;
    const y = state1;
    state0 = y;
    x = (x ^ (x << 23n)) & MASK;
    x ^= x >> 17n;
    x ^= y;
    x ^= y >> 26n;
    state1 = x;
  }
  return false;
}

function murmurHash3(h) {
  h ^= h >> 33n;
  h = (h * 0xff51afd7ed558ccdn) & MASK;
  h ^= h >> 33n;
  h = (h * 0xc4ceb9fe1a85ec53n) & MASK;
  return h ^ (h >> 33n);
}

// ------------------------------------------------------------------------------------------------------ the program

function receive() {
  let data = Buffer.alloc(0);
  const part = Buffer.alloc(1 << 16);
  for (;;) {
    data = Buffer.concat([data, part.subarray(0, fs.readSync(CONTROL, part))]);
    const line = data.indexOf('\n');
    if (line < 0) continue;
    const length = parseInt(data.latin1Slice(0, line), 10);
    if (data.length > line + length) {
      return data.utf8Slice(line + 1, line + length).split('\0'); // without the last NUL
    }
  }
}

// Make this process differ from every other fork of its template, and say so.
function refresh(generators) {
  const memory = fs.openSync('/proc/self/mem', 'r+');
  const random = fs.openSync('/dev/urandom', 'r');
  const state = Buffer.alloc(16);
  for (const address of generators) {
    if (fs.readSync(random, state) !== 16 || fs.writeSync(memory, state, 0, 16, address) !== 16) return;
  }
  fs.closeSync(random);
  fs.closeSync(memory);
  fs.writeSync(CONTROL, 'ready');
  fs.closeSync(CONTROL);
}

// ES modules have no require(); programs that use both it and import or a top-level await get one all the same.
function defineRequire(path) {
  let made;
  Object.defineProperty(globalThis, 'require', {
    configurable: true,
    get() { return made ??= Module.createRequire(path); },
    set(value) { made = value; },
  });
}

// At the end of a program that ended well, Node takes its heap apart page by page. The sandbox goes as a whole.
function leaveAtOnce() {
  process.on('exit', function leave(code) {
    if (code !== 0 || !process._exiting) return;
    for (const listener of process.rawListeners('exit')) {
      if (listener !== leave) Reflect.apply(listener, process, [code]);
    }
    process.reallyExit(process.exitCode ?? 0);
  });
}

function main() {
  const names = process.argv.splice(2);
  const [option] = process.execArgv.splice(0);
  const usual = process.argv[1];
  warmUp(names, usual);
  require('v8').setFlagsFromString('--random-seed=0'); // for the isolates of workers
  const generators = findGenerator(parseInt(option.split('=')[1], 10));
  const [path, ...args] = receive();
  refresh(generators);
  delete require.cache[__filename];
  process.argv.splice(1, 1, path, ...args);
  const identity = { configurable: true, enumerable: true, writable: false };
  Object.defineProperty(process, 'pid', { ...identity, value: parseInt(fs.readlinkSync('/proc/self'), 10) });
  Object.defineProperty(performance, 'timeOrigin', { ...identity, value: Date.now() - performance.now() });
  leaveAtOnce();
  defineRequire(path);
  if (path !== usual) {
    const { runMain } = Module;
    Object.defineProperty(Module, 'runMain', {
      configurable: true,
      get() {
        Object.defineProperty(Module, 'runMain', { ...identity, writable: true, value: runMain });
        return runMain.bind(Module, path);
      },
    });
  }
}

if (isMainThread) main();
