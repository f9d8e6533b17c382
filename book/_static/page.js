// Small services to every page: what scrolls sideways can be reached by the keyboard, and what is folded is printed.
"use strict";

(() => {
  const SCROLLING = ".bd-article :is(figure, table, pre, div.math, span.math, mjx-container), .bd-article div.output";

  function letKeysScroll() {
    for (const box of document.querySelectorAll(SCROLLING)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  addEventListener("resize", letKeysScroll);
  // Pictures and formulas that come, what is unfolded: all change the article's size.
  addEventListener("load", () => new ResizeObserver(letKeysScroll).observe(document.querySelector(".bd-article")));
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((e) => (e.open = true)));
})();
