// Refreshes a page by itself, shows times in the reader's zone, and listens to keys.
// Everything works without it.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const all = (query, from = document) => Array.from(from.querySelectorAll(query));
  const root = document.documentElement;
  const announce = (text) => { $("announced").textContent = text; };

  // Times.
  const pad = (n, width = 2) => String(n).padStart(width, "0");
  const span = (s) => {
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (s >= 2 * length) return `${Math.round(s / length)} ${unit}`;
    }
    return `${Math.round(s)} s`;
  };
  const skew = (() => {
    const at = document.querySelector(".as-of");
    return at ? Date.now() - Date.parse(at.dateTime) : 0;
  })();
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const times = () => {
    const now = Date.now() - skew;
    const local = root.dataset.zone === "local";
    for (const each of all("time")) {
      const at = new Date(each.dateTime);
      if (isNaN(at)) continue;
      const rel = each.querySelector(".rel");
      const passed = (now - at) / 1000;
      const text = passed >= 0 ? `${span(passed)} ago` : `in ${span(-passed)}`;
      if (rel && rel.textContent !== text) rel.textContent = text;
      const abs = each.querySelector(".abs");
      if (!abs || !local || abs.dataset.done) continue;
      const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
      let clock = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
      if (abs.dataset.exact) clock += `.${pad(at.getMilliseconds(), 3)}`;
      const today = new Date(now).toDateString() === at.toDateString();
      abs.textContent = rel && today && !abs.dataset.exact ? clock : `${day} ${clock}`;
      abs.dataset.done = "1";
      if (each.matches(".as-of")) each.nextElementSibling.textContent = zone;
      each.title += ` · ${day} ${clock}`;
    }
  };

  // Refreshing.
  const every = Number(document.body.dataset.refresh) * 1000;
  const main = $("live-main");
  let live = sessionStorage.getItem("riverrun-live") !== "off";
  let etag = null;
  let timer = 0;
  let failures = 0;
  const isBusy = () => {
    const at = document.activeElement;
    const selection = getSelection();
    return document.hidden || $("keys").open ||
      (selection && !selection.isCollapsed) ||
      (at && at.matches("input:not([type=checkbox]), select, textarea")) ||
      main.querySelector("input[type=checkbox]:checked, details.menu[open]");
  };
  const keep = () => {
    const at = document.activeElement;
    return {
      open: all("details[open][id]", main).map((each) => each.id),
      shut: all("details:not([open])[id]", main).map((each) => each.id),
      focus: at && main.contains(at) ? at.id ? `#${CSS.escape(at.id)}` : at.getAttribute("href") : null,
      row: all("[data-row]", main).findIndex((each) => each.classList.contains("at")),
      scroll: all(".scroll, pre", main).map((each) => [each.scrollLeft, each.scrollTop]),
    };
  };
  const restore = (kept) => {
    for (const id of kept.open) $(id)?.setAttribute("open", "");
    for (const id of kept.shut) $(id)?.removeAttribute("open");
    all(".scroll, pre", main).forEach((each, at) => {
      if (kept.scroll[at]) [each.scrollLeft, each.scrollTop] = kept.scroll[at];
    });
    all("[data-row]", main)[kept.row]?.classList.add("at");
    if (kept.focus) {
      const query = kept.focus[0] === "#" ? kept.focus : `[href="${CSS.escape(kept.focus)}"]`;
      main.querySelector(query)?.focus({ preventScroll: true });
    }
  };
  const load = async () => {
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const answer = await fetch(location.href, { headers, cache: "no-store" });
      if (answer.status === 304 || isBusy()) {
        if (answer.status === 304) failures = 0;
        return;
      }
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const part = fresh.getElementById("live-main");
      if (!part) throw new Error("no page");
      etag = answer.headers.get("ETag");
      failures = 0;
      const kept = keep();
      main.replaceChildren(...part.childNodes);
      restore(kept);
      enhance();
      const asOf = document.querySelector(".as-of");
      const newer = fresh.querySelector(".as-of");
      if (asOf && newer) asOf.replaceWith(newer);
      times();
    } catch {
      failures += 1;
    }
    $("stale").hidden = failures < 2;
  };
  const next = (soon) => {
    clearTimeout(timer);
    if (!every || !live) return;
    timer = setTimeout(async () => {
      const busy = isBusy();
      showLive(busy);
      if (!busy) await load();
      next();
    }, soon ? 50 : every * Math.min(1 + failures, 6));
  };
  const showLive = (busy) => {
    const button = $("live");
    if (!button) return;
    button.setAttribute("aria-pressed", String(live));
    const text = $("live-text");
    text.textContent = live && !busy ? text.dataset.on : text.dataset.off;
  };
  $("live")?.addEventListener("click", () => {
    live = !live;
    sessionStorage.setItem("riverrun-live", live ? "on" : "off");
    showLive();
    announce($("live-text").textContent);
    next(true);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) next(true); });

  // What is only there with scripts.
  const enhance = () => {
    const box = $("tick-all");
    if (box) {
      box.hidden = false;
      box.addEventListener("change", () => {
        for (const each of all("input[name=id]", main)) each.checked = box.checked;
      });
    }
    const go = document.querySelector("form[data-go]");
    if (go && !go.dataset.gone) {
      go.dataset.gone = "1";
      setTimeout(() => { if (!go.dataset.stopped) go.requestSubmit(); }, 300);
      go.querySelector("[data-stop]")?.addEventListener("click", () => { go.dataset.stopped = "1"; });
    }
  };

  // Keys.
  const step = (by) => {
    const rows = all("[data-row]", main);
    if (!rows.length) return;
    const was = rows.findIndex((each) => each.classList.contains("at"));
    const at = was < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(was + by, 0), rows.length - 1);
    rows[was]?.classList.remove("at");
    rows[at].classList.add("at");
    rows[at].scrollIntoView({ block: "nearest" });
    rows[at].querySelector("a")?.focus({ preventScroll: true });
  };
  let going = false;
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || at.isContentEditable ||
        at.matches("input:not([type=checkbox]), select, textarea") || $("keys").open) return;
    const key = event.key;
    if (going) {
      going = false;
      const link = document.querySelector(`.menu [data-key="${CSS.escape(key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const row = main.querySelector("[data-row].at");
    if (key === "g") going = true;
    else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (key === "x" && row) row.querySelector("input[type=checkbox]")?.click();
    else if (key === "r") load();
    else if (key === "?") $("keys").showModal();
    else if (key === "/") {
      const field = main.querySelector("form[role=search] input:not([type=hidden])");
      if (!field) return;
      field.focus();
      field.select();
    } else return;
    event.preventDefault();
  });
  $("keys-open").addEventListener("click", () => $("keys").showModal());

  // What was just done is shown once, and not again when the page is reloaded.
  const here = new URL(location.href);
  if (here.searchParams.has("done") && document.querySelector(".notice[role=status]")) {
    here.searchParams.delete("done");
    here.searchParams.delete("count");
    history.replaceState(null, "", here);
  }

  for (const each of all(".scripted, .live")) each.hidden = false;
  showLive();
  enhance();
  times();
  setInterval(() => { if (!document.hidden) times(); }, 1000);
  next();
})();
