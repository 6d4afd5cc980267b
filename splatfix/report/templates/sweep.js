// The trial under the pointer, or in the focused row, lights up in every chart and in the table.
{
  const readout = document.querySelector("[data-readout]");
  let lit = null;
  const light = (event) => {
    const trial = event.target.closest?.("[data-trial]")?.dataset.trial ?? null;
    if (trial === lit) return;
    lit = trial;
    for (const element of document.querySelectorAll(".lit")) element.classList.remove("lit");
    if (readout) readout.textContent = readout.dataset.readout;
    if (trial === null) return;
    for (const element of document.querySelectorAll(`[data-trial="${CSS.escape(trial)}"]`)) element.classList.add("lit");
    const title = document.querySelector(".path.lit title");
    if (readout && title) readout.textContent = title.textContent.split("\n").join(" · ");
  };
  document.addEventListener("pointerover", light);
  document.addEventListener("focusin", light);
}
