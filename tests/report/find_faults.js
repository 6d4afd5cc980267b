// What is wrong with a page at the size and colors in which it is shown: a list of sentences, each with a selector.
() => {
  const faults = new Set();
  const name = (element) => {
    const own = (e) => e.tagName.toLowerCase() + [...e.classList].map((c) => "." + c).join("");
    const section = element.closest("section[id]");
    return (section ? "#" + section.id + " " : "") + (element.parentElement ? own(element.parentElement) + " > " : "") + own(element);
  };
  const width = document.documentElement.clientWidth;
  for (const details of document.querySelectorAll("details")) details.open = true;

  if (document.documentElement.scrollWidth > width) {
    faults.add(`the page is ${document.documentElement.scrollWidth} px wide, the window ${width} px`);
    for (const element of document.querySelectorAll("main *")) {
      if (element.getBoundingClientRect().right > width + 1 && !scroller(element)) faults.add(`${name(element)} reaches beyond the window`);
    }
  }
  for (const image of document.images) {
    if (!image.complete || image.naturalWidth === 0) faults.add(`${name(image)} is broken: ${image.alt}`);
  }

  function scroller(element) {
    for (let e = element.parentElement; e; e = e.parentElement) {
      if (/auto|scroll/.test(getComputedStyle(e).overflowX) && e !== document.documentElement) return e;
    }
    return null;
  }
  for (const cell of document.querySelectorAll("table th, table td")) {
    const box = cell.getBoundingClientRect();
    if (box.width === 0) continue;
    const around = scroller(cell);
    const frame = (around || cell.closest(".panel") || document.querySelector("main")).getBoundingClientRect();
    if (frame.right > width + 1) faults.add(`${name(cell)}: its container reaches beyond the window`);
    if (!around && box.right > frame.right + 1) faults.add(`${name(cell)} "${cell.textContent.trim()}" is ${Math.round(box.right - frame.right)} px outside its panel, which does not scroll`);
    if (around && box.right - frame.left + around.scrollLeft > around.scrollWidth + 1) faults.add(`${name(cell)} cannot be scrolled to`);
  }

  const parse = (text) => {
    const found = text.match(/[\d.]+/g).map(Number);
    return { rgb: found.slice(0, 3), alpha: found.length > 3 ? found[3] : 1 };
  };
  const over = (top, alpha, under) => top.map((value, k) => alpha * value + (1 - alpha) * under[k]);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    if (!element) return [255, 255, 255];
    const { rgb, alpha } = parse(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? rgb : over(rgb, alpha, background(element.parentElement));
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("script, style, title, .sr, option")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    const style = getComputedStyle(element);
    if (box.width === 0 || style.visibility === "hidden") continue;
    const drawn = element instanceof SVGElement ? style.fill : style.color;
    if (!drawn.startsWith("rgb")) { faults.add(`${name(element)}: color ${drawn} cannot be read`); continue; }
    let { rgb, alpha } = parse(drawn);
    for (let e = element; e; e = e.parentElement) alpha *= Number(getComputedStyle(e).opacity);
    const under = background(element);
    const [a, b] = [luminance(over(rgb, alpha, under)), luminance(under)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), isBold = Number(style.fontWeight) >= 700;
    const wanted = size >= 24 || (size >= 18.66 && isBold) ? 3 : 4.5;
    if (contrast < wanted) faults.add(`${name(element)} "${node.data.trim().slice(0, 30)}": contrast ${contrast.toFixed(2)}, wanted ${wanted}`);
  }
  return [...faults];
}
