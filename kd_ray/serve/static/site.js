"use strict";
// Every page works without this file. It adds: forms that are sent when something is chosen, tips at what the pointer or the keyboard is
// on, a button that copies a command, and changes while a sweep runs.

for (const form of document.querySelectorAll("form.choose")) {
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) form.requestSubmit();
  });
  // What is not chosen does not stand in the URL.
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
}

const query = document.getElementById("q");
query?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) query.form.requestSubmit();
});

const tip = document.getElementById("tip");
function showTip(target) {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const box = target.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
}
const tipped = (event) => event.target.closest?.("[data-tip]");
for (const name of ["pointerover", "focusin"]) {
  document.addEventListener(name, (event) => tipped(event) && showTip(tipped(event)));
}
for (const name of ["pointerout", "focusout"]) {
  document.addEventListener(name, (event) => { if (tipped(event)) tip.hidden = true; });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

function offerCopies(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}
offerCopies(document);

// The server sends the cells that changed, and parts of the page that it rendered (and escaped) as it renders the page.
const main = document.getElementById("main");
if (main.dataset.events) {
  const source = new EventSource(main.dataset.events);
  source.addEventListener("change", (event) => {
    const { cells, parts } = JSON.parse(event.data);
    for (const [id, [css, sign, words]] of Object.entries(cells)) {
      const cell = document.getElementById(`c-${id}`);
      if (!cell) continue;
      const isOther = cell.textContent !== sign || !cell.classList.contains(css);
      cell.className = `cell ${css}`;
      cell.textContent = sign;
      cell.dataset.tip = words;
      cell.setAttribute("aria-label", words);
      if (isOther) cell.animate?.([{ outlineColor: "currentColor", outlineWidth: "2px", outlineStyle: "solid" }, { outlineColor: "transparent", outlineWidth: "2px", outlineStyle: "solid" }], 1200);
    }
    for (const [name, html] of Object.entries(parts)) {
      const part = document.getElementById(`part-${name}`);
      if (!part) continue;
      const open = [...part.querySelectorAll("details[open] a")].map((link) => link.getAttribute("href"));
      part.innerHTML = html;
      for (const details of part.querySelectorAll("details")) {
        details.open = open.includes(details.querySelector("a")?.getAttribute("href"));
      }
      offerCopies(part);
    }
  });
  addEventListener("pagehide", () => source.close());
}
