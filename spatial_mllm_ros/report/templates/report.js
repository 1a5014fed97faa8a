(() => {
  const list = document.getElementById("questions");
  if (!list) return;
  const rows = Array.from(list.children, (row) => [row, row.firstElementChild.textContent.toLowerCase()]);
  const words = document.getElementById("words");
  const verdict = document.getElementById("verdict");
  const kind = document.getElementById("kind");
  const shown = document.getElementById("shown");
  const apply = () => {
    const wanted = words.value.toLowerCase();
    let count = 0;
    for (const [row, text] of rows) {
      const fits = text.includes(wanted)
        && (!verdict.value || row.dataset.verdict === verdict.value)
        && (!kind || !kind.value || row.dataset.kind === kind.value);
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${rows.length}`;
  };
  document.getElementById("filter").addEventListener("input", apply);
  document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
})();
