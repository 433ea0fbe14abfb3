// One event stream for all tabs of a browser. Loaded as a shared worker it serves every tab; where there are no shared
// workers, the page itself makes a Stream. A tab joins with its token; messages go to the tab that they name.
"use strict";
class Stream {
  constructor() {
    this.tabs = new Map();
    this.source = null;
    this.timer = 0;
  }

  join(token, number, hear) {
    this.tabs.set(token, { number, hear });
    this.soon();
  }

  leave(token) {
    if (this.tabs.delete(token)) this.soon();
  }

  // A page that goes and the next that comes make one new connection, not two.
  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), 30);
  }

  open() {
    this.source?.close();
    this.source = null;
    if (!this.tabs.size) return;
    const asked = [...this.tabs].map(([token, tab]) => `tab=${token}:${tab.number}`).join("&");
    this.source = new EventSource(`/live?${asked}`);
    this.source.onmessage = (event) => this.hand(JSON.parse(event.data));
    this.source.onerror = () => {
      // The browser tries again by itself, but with the numbers of before; a fresh address says what was seen since.
      this.source?.close();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.open(), 1000);
    };
  }

  hand(message) {
    if (message.t === undefined) {
      for (const tab of this.tabs.values()) tab.hear(message);
      if (message.x) { this.source?.close(); this.tabs.clear(); }
      return;
    }
    const tab = this.tabs.get(message.t);
    if (!tab) return;
    if (message.n !== undefined) tab.number = message.n;
    tab.hear(message);
    if (message.x) this.tabs.delete(message.t);
  }
}

if (typeof SharedWorkerGlobalScope !== "undefined" && self instanceof SharedWorkerGlobalScope) {
  const stream = new Stream();
  self.onconnect = (event) => {
    const port = event.ports[0];
    port.onmessage = ({ data }) => {
      if (data.join) stream.join(data.join, data.number, (message) => port.postMessage(message));
      if (data.leave) stream.leave(data.leave);
    };
  };
}
