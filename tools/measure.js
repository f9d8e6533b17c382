// Runs in a page of the book, after MathJax, and leaves a report in the outer document (see screenshots.py).
addEventListener("load", async () => {
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  document.querySelectorAll(".toggle-hidden").forEach((e) => e.classList.remove("toggle-hidden"));

  const scrolls = (e) =>
    e && (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const name = (e) => `${e.tagName.toLowerCase()} ${e.className}: ${e.textContent.trim().slice(0, 60)}`;
  const box = (e) => e.getBoundingClientRect();
  const all = (selector) => [...document.querySelectorAll(selector)];
  const content = all("article.bd-article *");

  const report = {
    width: innerWidth,
    height: Math.ceil(Math.max(0, ...content.map((e) => box(e).bottom + scrollY))) + 200,
    sideways: document.documentElement.scrollWidth - innerWidth,
    overflowing: content.filter((e) => box(e).right > innerWidth + 1 && !scrolls(e.parentElement)).map(name),
    mathErrors: all("mjx-merror, [data-mjx-error]").map((e) => e.dataset.mjxError || e.textContent),
    unsetMath: all(".math").filter((e) => !e.querySelector("mjx-container")).map(name),
    scrollingCode: all(".cell_input pre").filter((e) => !e.closest(".admonition") && e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(name),
    missingImages: all("article img").filter((e) => !e.naturalWidth).map((e) => e.src),
    shrunkImages: all("article .cell_output img").filter((e) => e.naturalWidth > 3 * box(e).width).map((e) => e.alt),
  };
  const result = document.createElement("pre");
  result.id = "measured";
  result.textContent = JSON.stringify(report);
  top.document.body.append(result);
});
