#!/usr/bin/env node
// The greeter in Node.
//
//     wsbridge --port 8080 --devconsole examples/greeter.js
//
// What to know in Node: on Linux, console.log() into a pipe is written at once, there is nothing to flush. But stdin comes in
// pieces of any size, which are not lines: let readline cut them.

const readline = require("node:readline");

let number = 0;
readline.createInterface({ input: process.stdin }).on("line", (name) => {
    console.log(`Hello, ${name}! You are number ${++number}.`);
});
