'use strict';
/* The program is named by the server; the address is the page's own, which a server behind a proxy does not know. */
const { program } = document.documentElement.dataset;
const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${location.pathname}${program ? '' : 'PROGRAM'}`;
const shown = id => document.getElementById(id);

for (const id of ['url', 'snippet', 'command']) shown(id).textContent = shown(id).textContent.replace('ws://HOST:PORT/', url);
if (program) {
  shown('program').textContent = program;
  shown('what').textContent = 'Each connection starts this program. Its output lines arrive as messages; your messages arrive on its stdin.';
}
document.title = `${program || 'Programs'} on ${location.host} · wsbridge`;
