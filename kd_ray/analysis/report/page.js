"use strict";
// Tables sort by the button in a column's head and filter by the words in the field above: every word has to be in the row.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent;
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const compare = (a, b) => {
      const x = key(a, column), y = key(b, column);
      if (x === "" || y === "") return (x === "") - (y === "");
      return numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
    };
    head.querySelector("button").addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] ?? "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      const rows = [...original];
      if (next !== "none") {
        head.setAttribute("aria-sort", next);
        // What is undefined stays last in either direction.
        const sign = next === "descending" ? -1 : 1;
        rows.sort((a, b) => (key(a, column) === "" || key(b, column) === "" ? compare(a, b) : sign * compare(a, b)));
      }
      body.append(...rows);
    });
  });
}
for (const field of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(field.dataset.table).tBodies[0].rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  const output = field.closest("p").querySelector("output");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    output.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  });
}
// A table that is wider than its box says so, and shows a shadow at each edge beyond which there is more.
for (const box of document.querySelectorAll(".box")) {
  const hint = box.closest(".table").querySelector(".scrolls");
  const mark = () => {
    const beyond = box.scrollWidth - box.clientWidth;
    hint.hidden = beyond <= 1;
    box.parentElement.classList.toggle("more-left", box.scrollLeft > 1);
    box.parentElement.classList.toggle("more-right", box.scrollLeft < beyond - 1);
  };
  box.addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(mark).observe(box);
  mark();
}
