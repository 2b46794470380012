// Search and sorting of tables whose rows are many; nothing else on the page is moved by a script.
for (const table of document.querySelectorAll("table.searchable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const around = table.closest(".table");
  const box = around.querySelector("input");
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    around.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  });
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const isNumber = head.classList.contains("number");
    const value = (row) => row.cells[column].textContent.trim();
    const number = (row) => Number(value(row).replaceAll(",", "").replace("−", "-"));
    rows.sort((a, b) => sign * (isNumber ? number(a) - number(b) : value(a).localeCompare(value(b))));
    body.append(...rows);
  }));
}
