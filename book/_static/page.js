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

  addEventListener("load", letKeysScroll);
  addEventListener("resize", letKeysScroll);
  addEventListener("toggle", letKeysScroll, true); // what is unfolded has a width only then
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((e) => (e.open = true)));
})();
