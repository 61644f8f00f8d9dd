"""Programs in JavaScript: what ``node main.js`` does, in a fork of a warm Node."""

import re

import pytest

from .conftest import Shell

pytestmark = pytest.mark.kvm


def test_a_line(node: Shell) -> None:
    result = node("console.log(1 + 1)")
    assert (result.stdout, result.stderr, result.exit_code, result.status) == (b"2\n", b"", 0, "ok")


def test_both_streams_and_an_exit_code(node: Shell) -> None:
    result = node("console.log('out'); console.error('err'); process.stdout.write('no newline'); process.exit(7)")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\nno newline", b"err\n", 7)


def test_exit_handlers_and_exit_code(node: Shell) -> None:
    code = """
process.on('exit', (code) => { console.log('first', code); process.exitCode = 5; });
process.once('exit', () => console.log('second'));
process.on('beforeExit', () => console.log('before'));
"""
    result = node(code)
    assert (result.stdout, result.exit_code) == (b"before\nfirst 0\nsecond\n", 5)


def test_an_uncaught_exception(node: Shell) -> None:
    result = node("function f() {\n  throw new TypeError('no');\n}\nf();")
    assert (result.stdout, result.exit_code, result.status) == (b"", 1, "error")
    lines = result.stderr.decode().splitlines()
    assert lines[:3] == ["/home/user/main.js:2", "  throw new TypeError('no');", "  ^"]
    assert lines[4:7] == [
        "TypeError: no",
        "    at f (/home/user/main.js:2:9)",
        "    at Object.<anonymous> (/home/user/main.js:4:1)",
    ]
    assert "agent" not in result.stderr.decode()
    assert lines[-1].startswith("Node.js v")


def test_an_unhandled_rejection(node: Shell) -> None:
    result = node("Promise.reject(new Error('lost')); setTimeout(() => console.log('never'), 1000)")
    assert (result.stdout, result.exit_code) == (b"", 1)
    assert b"Error: lost" in result.stderr


def test_a_syntax_error(node: Shell) -> None:
    result = node("let = = 1")
    assert result.exit_code == 1
    assert b"/home/user/main.js:1" in result.stderr
    assert b"SyntaxError" in result.stderr


def test_timers_promises_and_microtasks_in_order(node: Shell) -> None:
    code = """
setTimeout(() => console.log('timeout'), 20);
setImmediate(() => console.log('immediate'));
Promise.resolve().then(() => console.log('microtask'));
process.nextTick(() => console.log('tick'));
const started = Date.now();
const timer = setInterval(() => { clearInterval(timer); console.log('interval', Date.now() - started >= 39); }, 40);
console.log('sync');
"""
    assert node.lines(code) == ["sync", "tick", "microtask", "immediate", "timeout", "interval true"]


@pytest.mark.parametrize(
    "code",
    [
        "const os = require('os'); console.log(typeof os.cpus, require.main === module, typeof __dirname)",
        "import os from 'node:os'; console.log(typeof os.cpus, import.meta.dirname === '/home/user', typeof 'x')",
        "const os = require('os'); await null; console.log(typeof os.cpus, true, typeof 'x')",
        "import os from 'os'; const { cpus } = require('os'); console.log(typeof cpus, cpus === os.cpus, typeof 'x')",
        "(async () => { const os = await import('os'); console.log(typeof os.cpus, true, typeof 'x') })()",
    ],
    ids=["CommonJS", "ES module", "require and top-level await", "import and require", "dynamic import"],
)
def test_modules_of_both_kinds(node: Shell, code: str) -> None:
    assert node.lines(code) == ["function true string"]


def test_sloppy_mode_is_as_in_a_script(node: Shell) -> None:
    assert node.lines("undeclared = 010; console.log(undeclared, this === module.exports)") == ["8 true"]


def test_a_top_level_await_that_never_ends(node: Shell) -> None:
    result = node("console.log('a'); await new Promise(() => {});")
    assert (result.stdout, result.exit_code) == (b"a\n", 13)


def test_name_arguments_and_files(node: Shell) -> None:
    code = "import fs from 'fs'; import { x } from './lib/x.mjs';\n"
    code += "console.log(process.argv, x, fs.readFileSync('data.txt', 'utf8'), process.execArgv)"
    files = {"lib/x.mjs": b"export const x = 42", "data.txt": b"text"}
    result = node(code, name="tool.mjs", argv=["a b", "", "ü"], files=files)
    assert result.stderr == b""
    assert result.stdout.decode() == "[ '/usr/local/bin/node', '/home/user/tool.mjs', 'a b', '', 'ü' ] 42 text []\n"


def test_a_stack_trace_of_a_script_of_another_name(node: Shell) -> None:
    result = node("throw new Error('x')", name="other.cjs")
    assert result.stderr.decode().splitlines()[0] == "/home/user/other.cjs:1"
    assert "[as runMain]" in result.stderr.decode()


def test_standard_input(node: Shell) -> None:
    code = "let n = 0; process.stdin.on('data', (d) => n += d.length); process.stdin.on('end', () => console.log(n))"
    assert node(code, stdin=b"x" * 200_000).stdout == b"200000\n"
    assert node("console.log(require('fs').readFileSync(0, 'utf8'))", stdin=b"all").stdout == b"all\n"


def test_much_output(node: Shell) -> None:
    result = node("for (let i = 0; i < 20000; i++) console.log('line ' + i)")
    assert result.stdout == "".join(f"line {i}\n" for i in range(20000)).encode()


def test_random_numbers_differ_between_forks(node: Shell) -> None:
    code = """
const crypto = require('crypto'), vm = require('vm');
console.log(Math.random());
console.log(vm.runInNewContext('Math.random()'));
console.log(crypto.randomUUID());
console.log(crypto.randomBytes(8).toString('hex'));
console.log(crypto.randomInt(2 ** 40));
console.log(crypto.webcrypto.getRandomValues(new Uint32Array(2)).join());
console.log(globalThis.crypto.randomUUID());
console.log(process.pid);
"""
    seen = [node.lines(code) for _ in range(5)]
    for values in zip(*seen, strict=True):
        assert len(set(values)) == 5, values


def test_random_numbers_differ_between_workers_and_contexts_of_a_fork(node: Shell) -> None:
    code = """
const { Worker } = require('worker_threads'), vm = require('vm');
const seen = [Math.random(), vm.runInNewContext('Math.random()'), vm.runInNewContext('Math.random()')];
for (let i = 0; i < 2; i++) {
  new Worker("require('worker_threads').parentPort.postMessage(Math.random())", { eval: true }).on('message', (x) => {
    seen.push(x);
    if (seen.length === 5) console.log(new Set(seen).size);
  });
}
"""
    assert node.lines(code) == ["5"]


def test_clocks(node: Shell) -> None:
    code = """
const now = Date.now();
console.log(now, Math.abs(performance.timeOrigin + performance.now() - now) < 1000);
const begin = process.hrtime.bigint();
setTimeout(() => console.log(process.hrtime.bigint() - begin >= 19_000_000n, performance.now() > 0), 20);
"""
    import time

    before = time.time()
    first, second = node.lines(code)
    milliseconds, origin = first.split()
    assert before - 0.1 <= int(milliseconds) / 1000 <= time.time() + 0.1
    assert (origin, second) == ("true", "true true")


def test_child_processes(node: Shell) -> None:
    code = """
const { execSync, spawnSync, exec, spawn, fork } = require('child_process');
console.log(execSync('printf "b\\\\na\\\\n" | sort').toString());
console.log(spawnSync('sh', ['-c', 'exit 4']).status, spawnSync('cat', { input: 'piped' }).stdout.toString());
exec('echo from exec; exit 3', (error, stdout) => {
  console.log(error.code, stdout.trim());
  const child = spawn('cat');
  child.stdout.on('data', (data) => console.log('spawned', data.toString()));
  child.on('close', (code, signal) => {
    console.log('closed', code, signal);
    const sleeper = spawn('sleep', ['60']);
    sleeper.on('exit', (code, signal) => console.log(code, signal));
    sleeper.kill();
  });
  child.stdin.end('text');
});
"""
    assert node.lines(code) == ["a", "b", "", "4 piped", "3 from exec", "spawned text", "closed 0 null", "null SIGTERM"]


def test_a_node_of_ones_own(node: Shell) -> None:
    code = """
const { execFileSync, fork } = require('child_process');
const inner = "console.log(Math.random() !== " + Math.random() + ", process.execArgv[0])";
console.log(execFileSync(process.execPath, ['-e', inner]).toString().trim());
const child_code = 'process.on("message", (m) => { process.send(m * 2); process.disconnect(); })';
require('fs').writeFileSync('child.js', child_code);
const child = fork('./child.js');
child.on('message', (m) => console.log('answer', m));
child.send(21);
"""
    assert node.lines(code) == ["true -e", "answer 42"]


def test_workers(node: Shell) -> None:
    code = """
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (isMainThread) {
  const shared = new Int32Array(new SharedArrayBuffer(4));
  const workers = [1, 2, 3].map((n) => new Worker(__filename, { workerData: { n, shared } }));
  let left = workers.length;
  for (const worker of workers) worker.on('exit', () => { if (!--left) console.log(Atomics.load(shared, 0)); });
} else {
  for (let i = 0; i < 1000; i++) Atomics.add(workerData.shared, 0, workerData.n);
}
"""
    assert node.lines(code) == ["6000"]


def test_webassembly(node: Shell) -> None:
    # (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))
    code = """
const hex = '0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b';
const bytes = Buffer.from(hex, 'hex');
WebAssembly.instantiate(bytes).then(({ instance }) => console.log(instance.exports.add(40, 2)));
"""
    assert node.lines(code) == ["42"]


def test_files_streams_and_compression(node: Shell) -> None:
    code = """
const fs = require('fs'), path = require('path'), zlib = require('zlib'), { pipeline } = require('stream/promises');
(async () => {
  fs.mkdirSync('a/b', { recursive: true });
  await fs.promises.writeFile('a/b/x', 'x'.repeat(100000));
  await pipeline(fs.createReadStream('a/b/x'), zlib.createGzip(), fs.createWriteStream('a/x.gz'));
  console.log(zlib.gunzipSync(fs.readFileSync('a/x.gz')).length, fs.readdirSync('a').join(), path.resolve('a'));
  fs.rmSync('a', { recursive: true });
  console.log(fs.existsSync('a'), require('crypto').createHash('sha256').update('').digest('hex').slice(0, 8));
  try { fs.readFileSync('/no/such'); } catch (error) { console.log(error.code, error.errno); }
})();
"""
    assert node.lines(code) == ["100000 b,x.gz /home/user/a", "false e3b0c442", "ENOENT -2"]


def test_a_server_and_its_client(node: Shell) -> None:
    code = """
const http = require('http');
const server = http.createServer((request, response) => response.end('hello ' + request.url));
server.listen(0, '127.0.0.1', () => {
  http.get({ port: server.address().port, host: '127.0.0.1', path: '/x' }, (response) => {
    response.setEncoding('utf8');
    response.on('data', (data) => console.log(response.statusCode, data));
    response.on('end', () => server.close());
  });
});
"""
    assert node.lines(code) == ["200 hello /x"]


def test_the_compiler_at_work(node: Shell) -> None:
    """Long enough that other threads compile it and the collector runs."""
    code = """
let sum = 0;
for (let i = 0; i < 3e6; i++) sum = (sum * 31 + i) % 1000003;
const objects = [];
for (let i = 0; i < 200000; i++) objects.push({ i, text: 'n' + i });
console.log(sum, objects.filter((o) => o.i % 2).length, [3, 1, 2].sort().join());
"""
    result = node(code)
    assert (result.status, result.stdout.split()[1:]) == ("ok", [b"100000", b"1,2,3"])


def test_too_much_memory_ends_the_program(node: Shell) -> None:
    result = node("const a = []; for (;;) a.push(new Array(1e6).fill(1.5))")
    assert result.status in ("oom", "crashed", "error")
    assert result.exit_code in (134, 137)


def test_a_time_out_keeps_what_was_written(node: Shell) -> None:
    result = node("console.log('begun'); for (;;) ;", timeout=2.0)
    assert (result.stdout, result.exit_code, result.status) == (b"begun\n", -1, "timeout")


def test_nothing_of_the_agent_is_left(node: Shell) -> None:
    code = """
console.log(Object.keys(require.cache).join(), process.argv.length, process.mainModule === module);
console.log(require('fs').readdirSync('/home/user').join());
try { require('fs').readSync(3, Buffer.alloc(1)); } catch (error) { console.log(error.code); }
const names = Object.getOwnPropertyNames(globalThis).filter((name) => /agent|pyvmm|gc/.test(name));
console.log(names.length, process.env.NODE_OPTIONS);
"""
    assert node.lines(code) == ["/home/user/main.js 2 true", "main.js", "EBADF", "0 undefined"]


def test_the_version_is_that_of_the_recipe(node: Shell) -> None:
    (line,) = node.lines("console.log(process.version, process.platform, process.arch, require('os').hostname())")
    assert re.fullmatch(r"v24\.\d+\.\d+ linux x64 sandbox", line)
