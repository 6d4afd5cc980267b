// Sliders: a range input moves the line; radio buttons choose the two pictures. Pictures are enlarged in a dialog.
function start(slider, radios) {
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
  for (const radio of radios) {
    radio.addEventListener("change", () => {
      slider.dataset[radio.closest("fieldset").dataset.side] = radio.value;
      choose();
    });
  }
  choose();
}
for (const slider of document.querySelectorAll(".slider")) {
  start(slider, slider.closest("figure").querySelectorAll("input[type=radio]"));
}
const dialog = document.querySelector("#zoomed");
const enlarge = (picture, caption) => {
  dialog.querySelector(".stage").replaceChildren(picture);
  dialog.querySelector(".caption").textContent = caption;
  dialog.showModal();
};
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img").cloneNode();
    image.style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
    enlarge(image, image.alt);
  });
}
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    const figure = button.closest("figure"), copy = figure.querySelector(".slider").cloneNode(true);
    copy.style.setProperty("--ratio", figure.style.getPropertyValue("--ratio"));
    start(copy, []);
    enlarge(copy, "");
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
for (const box of document.querySelectorAll(".scroll, .rows")) {
  const mark = () => box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  mark();
  new ResizeObserver(mark).observe(box);
}
