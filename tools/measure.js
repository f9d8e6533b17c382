// Runs in a page of the book, after MathJax, in a frame whose width it sets; leaves a report in the outer document
// (see screenshots.py): at each width what overflows and which formulas are not set, and what axe-core, where it is
// there, finds in light and dark.
addEventListener("load", async () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const settled = () => new Promise((resolve) => setTimeout(resolve, 300));
  document.head.append(Object.assign(document.createElement("style"), { textContent: "* { transition: none !important; }" }));
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  all(".toggle-hidden").forEach((e) => e.classList.remove("toggle-hidden"));
  all("details").forEach((e) => (e.open = true));
  all("img").forEach((e) => (e.loading = "eager"));
  await Promise.all(all("img").map((e) => e.decode().catch(() => {})));

  const scrolls = (e) =>
    e && (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const name = (e) => `${e.tagName.toLowerCase()} ${e.className}: ${e.textContent.trim().slice(0, 60)}`;
  const box = (e) => e.getBoundingClientRect();
  const content = all("article.bd-article *");

  // As axe-core's rule has it: what scrolls sideways must be reached by the keyboard.
  const unreachable = (e) =>
    ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 13 &&
    e.tabIndex < 0 && !e.querySelector("a[href], button, input");

  const layout = () => ({
    width: innerWidth,
    height: Math.ceil(Math.max(0, ...content.map((e) => box(e).bottom + scrollY))) + 200,
    sideways: document.documentElement.scrollWidth - innerWidth,
    overflowing: content.filter((e) => box(e).right > innerWidth + 1 && !scrolls(e.parentElement)).map(name),
    unreachable: content.filter(unreachable).map(name),
    mathErrors: all("mjx-merror, [data-mjx-error]").map((e) => e.dataset.mjxError || e.textContent),
    unsetMath: all(".math").filter((e) => !e.querySelector("mjx-container")).map(name),
    scrollingCode: all(".cell_input pre").filter((e) => !e.closest(".admonition") && e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(name),
    missingImages: all("article img").filter((e) => !e.naturalWidth).map((e) => e.src),
    shrunkImages: all("article .cell_output img").filter((e) => e.naturalWidth > 3 * box(e).width).map((e) => e.alt),
  });

  // What MathJax makes of a formula is not ours, and thousands of words of code and rows of tables look as others do
  // that are looked at: axe-core is spared them.
  const look = (e) => `${e.tagName} ${e.className}`;
  const path = (e) => (e ? `${path(e.parentElement)}/${look(e)}` : "");
  const shape = (e) => [path(e), ...[...e.querySelectorAll("*")].map(look)].join();
  const repeated = (elements, sign) => {
    const seen = new Set();
    return elements.filter((e) => seen.size === seen.add(sign(e)).size);
  };
  const thin = () => {
    all("mjx-container").forEach((e) => e.remove());
    repeated(all("article pre span:not(:has(*))"), path).forEach((e) => e.replaceWith(e.textContent));
    repeated(all("article tbody tr"), shape).forEach((e) => e.remove());
  };

  // Of the mode only colours depend.
  const accessibility = async (mode) => {
    document.documentElement.dataset.theme = document.documentElement.dataset.mode = mode;
    await settled();
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const runOnly = mode === "light" ? tags : { type: "rule", values: ["color-contrast", "link-in-text-block"] };
    const { violations } = await axe.run(document, { runOnly, resultTypes: ["violations"] });
    return violations.map((v) => `${v.id}, ${v.nodes.length} times: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" … ")}`);
  };

  const widths = JSON.parse(frameElement.dataset.widths);
  const reports = {};
  const at = async (width) => {
    frameElement.width = width;
    await settled();
    dispatchEvent(new Event("resize")); // a busy machine may draw no frame in that time, which would tell the page
  };
  for (const width of widths) {
    await at(width);
    reports[width] = layout();
  }
  if (window.axe) thin();
  for (const width of window.axe ? widths : []) {
    await at(width);
    reports[width].axe = { light: await accessibility("light"), dark: await accessibility("dark") };
  }
  const result = document.createElement("pre");
  result.id = "measured";
  result.textContent = JSON.stringify(reports);
  top.document.body.append(result);
});
