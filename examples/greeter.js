#!/usr/bin/env node
// The greeter in Node.
//
//     wsbridge --port 8080 --devconsole examples/greeter.js
//
// In Node on Linux, console.log() writes to a pipe at once, so no flush is necessary. stdin arrives in pieces of any size, so
// readline splits it into lines.

const readline = require("node:readline");

let number = 0;
readline.createInterface({ input: process.stdin }).on("line", (name) => {
    console.log(`Hello, ${name}! You are number ${++number}.`);
});
