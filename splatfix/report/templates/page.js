// Before/after sliders: a range input moves the line; radio buttons choose the two pictures. Nothing else needs script.
for (const slider of document.querySelectorAll(".slider")) {
  const range = slider.querySelector("input[type=range]");
  const move = () => {
    slider.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext",
      range.value + " % " + slider.dataset.first + ", " + (100 - range.value) + " % " + slider.dataset.second);
  };
  const choose = () => {
    for (const image of slider.querySelectorAll("img")) {
      image.classList.toggle("over", image.dataset.arm === slider.dataset.first);
      image.classList.toggle("under", image.dataset.arm === slider.dataset.second);
    }
    slider.querySelector(".tag.left").textContent = slider.dataset.first;
    slider.querySelector(".tag.right").textContent = slider.dataset.second;
    move();
  };
  range.addEventListener("input", move);
  for (const radio of slider.closest("figure").querySelectorAll("input[type=radio]")) {
    radio.addEventListener("change", () => {
      slider.dataset[radio.closest("fieldset").dataset.side] = radio.value;
      choose();
    });
  }
  choose();
}
