// Search would run in a worker made of a blob, which the page's policy does not let run. A hundred operations are drawn as they
// come, not all before the first is seen.
Redoc.init("/openapi.json", {disableSearch: true, lazyRendering: true}, document.getElementById("redoc"))
