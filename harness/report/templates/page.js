"use strict";
// Everything on the page is there without this; it finds, folds and copies.
(() => {
  const main = document.querySelector("main"), tools = document.querySelector(".tools");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const unfold = (node) => { for (let e = node.parentElement; e; e = e.parentElement) if (e.localName === "details") e.open = true; };
  const go = (node) => { unfold(node); (node.localName === "details" ? node.firstElementChild : node).scrollIntoView({ block: "center" }); };

  // A link to something folded away unfolds it.
  const follow = () => {
    const at = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (at) { if (at.localName === "details") at.open = true; unfold(at); at.scrollIntoView(); }
  };
  addEventListener("hashchange", follow);
  follow();

  for (const button of all("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy);
      getSelection().selectAllChildren(text);
      try { await navigator.clipboard.writeText(text.textContent); } catch { document.execCommand("copy"); }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  // Of a console the end is what is wanted.
  for (const item of all("details[data-end]")) {
    const down = () => { for (const text of all("pre", item)) text.scrollTop = text.scrollHeight; };
    item.addEventListener("toggle", down);
    down();
  }
  if (!tools) return;
  tools.hidden = false;

  const folds = document.getElementById("folds");
  folds?.addEventListener("click", () => {
    const open = folds.getAttribute("aria-pressed") !== "true";
    for (const item of all("details", main)) item.open = open;
    folds.setAttribute("aria-pressed", String(open));
  });
  const problems = document.getElementById("problems");
  problems?.addEventListener("click", () => {
    const only = problems.getAttribute("aria-pressed") !== "true";
    problems.setAttribute("aria-pressed", String(only));
    for (const step of all("[data-fine]", main)) step.hidden = only;
  });

  const field = document.getElementById("find"), hits = document.getElementById("hits");
  const MOST = 2000;
  let found = [], at = -1, timer = 0;
  const paint = (name, ranges) => { if (CSS.highlights) CSS.highlights.set(name, new Highlight(...ranges)); };
  const show = () => {
    const node = found[at]?.startContainer;
    hits.textContent = !field.value ? "" : found.length ? `${at + 1} of ${found.length}${found.length === MOST ? "+" : ""}` : "not found";
    paint("here", node ? [found[at]] : []);
    if (!node) return;
    unfold(node);
    const step = node.parentElement.closest("[data-fine][hidden]");
    if (step) step.hidden = false;
    const box = node.parentElement.closest("pre");
    node.parentElement.scrollIntoView({ block: "center", behavior: "instant" });
    // Within a long text its own place has to be scrolled to.
    const place = found[at].getBoundingClientRect();
    if (box) box.scrollTop += place.top - box.getBoundingClientRect().top - box.clientHeight / 2;
  };
  const find = () => {
    found = []; at = -1;
    const wanted = field.value.toLowerCase();
    const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
    while (wanted.length > 1 && found.length < MOST && walker.nextNode()) {
      const text = walker.currentNode.data.toLowerCase();
      if (text.length !== walker.currentNode.data.length) continue;
      for (let i = text.indexOf(wanted); i >= 0 && found.length < MOST; i = text.indexOf(wanted, i + wanted.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, i);
        range.setEnd(walker.currentNode, i + wanted.length);
        found.push(range);
      }
    }
    paint("found", found);
    if (found.length) at = 0;
    show();
  };
  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(find, 150); });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { field.value = ""; find(); field.blur(); return; }
    if (event.key !== "Enter") return;
    event.preventDefault();
    clearTimeout(timer);
    if (at < 0) { find(); return; }
    at = (at + (event.shiftKey ? found.length - 1 : 1)) % found.length;
    show();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(input|textarea)$/i.test(event.target.localName)) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
})();
