// Output of a job: new text is appended, the end is followed unless one has scrolled up, and only the
// last part is kept in the page.
import { api, repeat } from "./app.js";

const most = 400_000; // characters in the page
const log = document.getElementById("log");
const state = document.getElementById("log-state");

const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
const say = () => { state.textContent = atEnd() ? state.dataset.following : state.dataset.paused; };

if (log) {
  log.scrollTop = log.scrollHeight;
  log.addEventListener("scroll", say, { passive: true });
  say();
  let cursor = log.dataset.cursor;
  repeat(async () => {
    const found = await api(`${log.dataset.log}?after=${cursor}`);
    cursor = found.cursor;
    if (found.text) {
      const follow = atEnd();
      log.append(found.text);
      if (log.textContent.length > most) {
        log.textContent = log.textContent.slice(-most / 2);
      }
      if (follow) log.scrollTop = log.scrollHeight;
      say();
    }
    if (found.more) return 50;
    const status = document.getElementById("head")?.dataset.status;
    return ["running", "stopping"].includes(status) ? 1000 : 5000;
  }, cursor ? 1000 : 10);
}
