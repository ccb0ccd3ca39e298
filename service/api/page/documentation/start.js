/* Starts Swagger UI. It has its own file because the page's policy forbids inline scripts. */
SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // the validator is on another host
});
