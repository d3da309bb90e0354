// Search would run in a worker made of a blob, which the page's policy does not let run.
Redoc.init("/openapi.json", {disableSearch: true, hideDownloadButton: false}, document.getElementById("redoc"))
