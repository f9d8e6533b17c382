// Runs in the joined page: reports, as its title, what MathJax set, what would be cut at the right, what did not load.
window.MathJax ??= {};
MathJax.options = { ...MathJax.options, enableAssistiveMml: false };
MathJax.startup = {
  async pageReady() {
    await MathJax.startup.defaultPageReady();
    await document.fonts.ready;
    for (const formula of MathJax.startup.document.math) {
      formula.typesetRoot.setAttribute("role", "img"); // one object for screen readers, not one for each letter
      formula.typesetRoot.setAttribute("aria-label", formula.math);
    }
    for (const box of document.querySelectorAll("mjx-container[display]")) {
      const ratio = box.clientWidth / box.scrollWidth;
      if (ratio < 1) box.style.fontSize = `${119.5 * ratio}%`;
    }
    const count = (selector) => document.querySelectorAll(selector).length;
    const right = (element) => element.getBoundingClientRect().right;
    const cut = [...document.querySelectorAll("article :is(pre, table, img, mjx-math)")].filter(
      (element) =>
        right(element) > right(element.closest(".admonition, article")) + 1 ||
        (element.matches("pre") && element.scrollWidth > element.clientWidth + 1),
    );
    const lost = [...document.images].filter((image) => !image.naturalWidth);
    const wrong = count("mjx-merror");
    document.title = `${count("mjx-container")} formulae, ${wrong} wrong, ${cut.length} cut, ${lost.length} pictures lost`;
  },
};
