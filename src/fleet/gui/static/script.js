// Everything here adds to pages that work without it: live regions, local times, copy buttons, toasts, fields that depend on others.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Times in the viewer's zone, UTC on hover.
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "always", style: "short" });
  const away = (seconds) => {
    const far = Math.abs(seconds);
    for (const [unit, length, from] of [["day", 86400, 172800], ["hour", 3600, 7200], ["minute", 60, 90]]) {
      if (far >= from) return relative.format(Math.round(seconds / length), unit);
    }
    return far < 10 ? "just now" : relative.format(Math.round(seconds), "second");
  };
  const dress = (root) => {
    for (const time of all("time[datetime]", root)) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      const local = exact.format(at);
      const text = "ago" in time.dataset ? away((at - Date.now()) / 1000) : local;
      if (time.textContent !== text) time.textContent = text;
      const title = "ago" in time.dataset ? `${local} (${at.toISOString().slice(0, 16).replace("T", " ")} UTC)` : `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
      if (time.title !== title) time.title = title;
    }
  };

  // Makes `old` like `next`, touching nothing that is equal: focus, scroll, selection and open details stay.
  const KEPT = new Set(["open"]);
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.nodeType !== 1 || (a.id || "") === (b.id || ""));
  const morph = (old, next) => {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
      return;
    }
    const typing = old === document.activeElement && old.matches("input, select, textarea");
    for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
    for (const { name, value } of [...next.attributes]) {
      if (KEPT.has(name) || (typing && name === "value")) continue;
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const to = [...next.childNodes];
    const named = new Set(to.map((child) => child.id).filter(Boolean));
    to.forEach((child, at) => {
      let there = old.childNodes[at];
      const stays = child.id && [...old.childNodes].slice(at).some((other) => other.id === child.id);
      while (stays && there.id !== child.id && !named.has(there.id)) {
        there.remove();
        there = old.childNodes[at];
      }
      if (there && alike(there, child)) morph(there, child);
      // What comes back further down stays: an open question must not become another one.
      else if (there && !named.has(there.id)) old.replaceChild(child, there);
      else old.insertBefore(child, there || null);
    });
    while (old.childNodes.length > to.length) old.lastChild.remove();
  };

  // What somebody chooses from does not move under the hand: it is renewed when nothing is chosen and nobody is at it.
  const later = new Map();
  const busy = (region) => "hold" in region.dataset && (region.matches(":hover") || region.contains(document.activeElement) || region.querySelector("input:checked"));

  const touched = (field) => (field.options ? [...field.options].some((o) => o.selected !== o.defaultSelected) : "defaultValue" in field && (field.value !== field.defaultValue || field.checked !== field.defaultChecked));
  const typed = (form) => [...form.elements].some((field) => field.name && field.type !== "hidden" && touched(field));

  // One stream per page that is looked at; a hidden tab gives its place back.
  const address = document.body.dataset.stream;
  const badge = document.querySelector("[data-connection]");
  const word = document.querySelector("[data-connection-word]");
  let stream = null;
  const say = (text, lost) => {
    if (!badge) return;
    badge.hidden = false;
    badge.classList.toggle("lost", lost);
    if (word.textContent !== text) word.textContent = text;
  };
  const listen = () => {
    if (!address || !window.EventSource || stream || document.hidden) return;
    stream = new EventSource(`/live?page=${encodeURIComponent(address)}`);
    stream.addEventListener("open", () => say("Live", false));
    stream.addEventListener("error", () => {
      say("Connecting…", true);
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;
        setTimeout(listen, 10000 + Math.random() * 5000);
      }
    });
    stream.addEventListener("region", (event) => {
      const { id, html } = JSON.parse(event.data);
      const old = document.querySelector(`[data-live="${CSS.escape(id)}"]`);
      if (!old) return;
      const next = old.cloneNode(false);
      next.innerHTML = html;
      dress(next);
      const same = next.isEqualNode(old);
      if (same || !busy(old)) return put(old, next);
      later.set(old, next);
      for (const hint of all("[data-held]", old)) hint.hidden = false;
    });
    // The session is over: the next load shows the login and returns here. What somebody has typed goes there with Save instead.
    stream.addEventListener("gone", () => {
      if (!all("form").some(typed)) return location.reload();
      hush();
      say("Signed out", true);
    });
  };
  const put = (old, next) => {
    later.delete(old);
    morph(old, next);
    equip(old);
  };
  const settle = () => setTimeout(() => {
    for (const [old, next] of [...later]) if (!busy(old)) put(old, next);
  }, 0);
  for (const kind of ["change", "focusout", "pointerover"]) document.addEventListener(kind, () => later.size && settle());
  const hush = () => {
    if (stream) stream.close();
    stream = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
  addEventListener("pagehide", hush);
  addEventListener("pageshow", listen);

  // Fields that count only while another one has a value: `data-only-if="method=schedule|immediate"`, several with a comma.
  const depend = (form) => {
    const value = (name) => {
      const field = form.elements[name];
      if (!field) return "";
      if (field.type === "checkbox") return field.checked ? "on" : "";
      return field.value;
    };
    for (const part of all("[data-only-if]", form)) {
      part.hidden = !part.dataset.onlyIf.split(",").every((rule) => {
        const [name, values] = rule.split("=");
        return values.split("|").includes(value(name));
      });
    }
  };
  const equip = (root) => {
    for (const form of all("form", root)) if (form.querySelector("[data-only-if]")) depend(form);
    if (navigator.clipboard) for (const button of all("[data-copy][hidden]", root)) button.hidden = false;
  };
  document.addEventListener("input", (event) => event.target.form && depend(event.target.form));
  document.addEventListener("change", (event) => {
    if (event.target.form) depend(event.target.form);
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  });

  // What settings would come to, while one types: the server says it, by the same code that would save them.
  const pending = new WeakMap();
  const preview = (form) => {
    clearTimeout(pending.get(form));
    pending.set(form, setTimeout(async () => {
      const typed = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.dataset.preview, { method: "POST", body: typed }).catch(() => null);
      // What was typed since asks again by itself.
      // Led elsewhere: the session is over, and Save leads to the login.
      if (!answer || !answer.ok || answer.redirected || typed.toString() !== new URLSearchParams(new FormData(form)).toString()) return;
      const old = form.querySelector("[data-preview-here]");
      const next = old.cloneNode(false);
      next.innerHTML = await answer.text();
      dress(next);
      morph(old, next);
    }, 250));
  };
  document.addEventListener("input", (event) => event.target.form && event.target.form.dataset.preview && preview(event.target.form));

  const toast = (text) => {
    const place = document.querySelector(".toasts");
    const box = document.createElement("div");
    box.className = "toast";
    const line = document.createElement("p");
    line.textContent = text;
    box.append(line);
    place.append(box);
    setTimeout(() => box.remove(), 4000);
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy], [data-close]");
    if (!button) return;
    if ("close" in button.dataset) return button.closest("[data-toast]").remove();
    const from = document.getElementById(button.dataset.copy);
    await navigator.clipboard.writeText(from.textContent);
    toast("Copied");
  });
  // What went well goes away by itself; what did not, stays.
  for (const good of all("[data-toast]:not(.bad)")) setTimeout(() => good.remove(), 10000);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = event.target.closest && event.target.closest("details.menu[open], details.ask[open], details.burger[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });

  // The switch shows what it will do, also when the system chose.
  const switched = document.querySelector("[data-theme-value]");
  if (switched) {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    switched.value = dark ? "light" : "dark";
  }

  // Where one is when a form was not good: at the first field that is wrong.
  const wrong = document.querySelector("[aria-invalid], .wrong input");
  if (wrong) wrong.focus();

  // For the other scripts of a page: what a replaced region needs again.
  window.fleet = { dress, equip, morph };
  dress(document);
  equip(document);
  setInterval(() => dress(document), 10000);
  listen();
})();
