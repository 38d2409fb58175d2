/* The common part of every plugin's page: a WebSocket to the script in its folder, which reconnects, and its state as text.
 *
 *     const script = plugin("cpu.sh", { sample(message) { … }, machine(message) { … } });
 *     script.send("now");
 *
 * The script prints JSON, one object per line; its "type" names the function that handles it. The page sends lines of plain
 * words, which a bash script reads easily. The state is in the element with the id "state".
 *
 * The page reconnects after half a second, then after one, two, four … up to 30 s. It reconnects at once when the network or the
 * page becomes active again, or on the press of the button. It does not restart a script that ended by itself (code 1000).
 */
"use strict";

function plugin(script, receive) {
  const LONGEST_WAIT_MS = 30_000;
  const STEADY_MS = 5_000; // a connection that has lasted this long was a good one: the next wait is short again

  const reasons = {
    1001: "The server is shutting down.",
    1006: "The connection is lost, or the server cannot be reached.",
    1011: "The script failed",
    1013: "The server is busy.",
  };

  const address = new URL(script, location.href);
  address.protocol = address.protocol.replace("http", "ws"); // and https becomes wss

  const state = document.getElementById("state");
  const words = state.appendChild(document.createElement("span"));
  const again = state.appendChild(document.createElement("button"));
  again.type = "button";
  again.onclick = connect;

  let socket = null;
  let timer = 0;
  let attempts = 0;

  function say(kind, text, button = "") {
    document.body.dataset.state = kind; // for the style sheet
    words.textContent = text;
    again.textContent = button;
    again.hidden = !button;
  }

  function connect() {
    clearTimeout(timer);
    say("connecting", "Connecting …");
    let opened = Infinity;
    socket = new WebSocket(address);
    socket.onopen = () => {
      opened = performance.now();
      say("open", "Connected");
      receive.open?.();
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      receive[message.type]?.(message);
    };
    socket.onclose = (event) => {
      if (performance.now() - opened > STEADY_MS) attempts = 0;
      receive.close?.();
      if (event.code === 1000) say("ended", "The script has ended.", "Start it again");
      else wait(event);
    };
  }

  function wait(event) {
    const reason = (reasons[event.code] ?? `Disconnected with code ${event.code}`) + (event.reason ? `: ${event.reason}.` : "");
    const longest = Math.min(LONGEST_WAIT_MS, 500 * 2 ** attempts++);
    const pause = longest * (0.75 + Math.random() / 4); // not all pages in the same instant
    say("waiting", `${reason} Trying again in ${Math.max(1, Math.round(pause / 1000))} s.`, "Try now");
    timer = setTimeout(connect, pause);
  }

  const tryNow = () => {
    if (document.body.dataset.state === "waiting" && !document.hidden) connect();
  };
  addEventListener("online", tryNow);
  document.addEventListener("visibilitychange", tryNow);

  connect();
  return {
    /* Send one line; return false without a connection. */
    send(line) {
      if (socket.readyState !== WebSocket.OPEN) return false;
      socket.send(line);
      return true;
    },
  };
}
