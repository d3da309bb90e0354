// Swagger UI for this gateway. A credential stays in the page's memory; nothing is asked of anybody else.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  persistAuthorization: false,
  queryConfigEnabled: false, // nobody's link decides which document is shown beside our name
  validatorUrl: null,
  tryItOutEnabled: true,
  // OpenAPI cannot say that a name has several parts, so their slashes come encoded.
  requestInterceptor: (request) => {
    const [path, ...query] = request.url.split("?")
    request.url = [path.replaceAll("%2F", "/"), ...query].join("?")
    return request
  },
})
