// Sends what a form's field for the key says as the Idempotency-Key header.
// Needs jQuery and ajax-form.js, which the browsable API of Django REST framework loads before it.
(function ($) {
  "use strict";

  const FIELD = "[data-idempotent-methods]";
  let key = "";

  // A replayed page has the key that was fresh when the page was first sent.
  if (window.crypto && crypto.randomUUID) {
    $(FIELD).val(() => crypto.randomUUID());
  }

  function methodOf(form, button) {
    return (
      $(button).data("method") || $(form).data("method") || $(form).attr("method") || "GET"
    ).toUpperCase();
  }

  // While capturing, so that it comes before the framework's own handler.
  document.addEventListener("submit", function (event) {
    const form = event.target;
    const method = methodOf(form, event.submitter);
    const field = $(form).find(FIELD);
    const honouring = (field.data("idempotent-methods") || "").split(" ");
    key = honouring.includes(method) ? field.val().trim() : "";
    if (key && !field[0].reportValidity()) {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }

    const isRaw = $(form).find('[data-override="content"]').length > 0;
    if (key && method === "POST" && !isRaw) {
      event.preventDefault(); // the framework leaves this one to the browser
      post(form);
    }
  }, true);

  // After its own beforeSend, which adds the CSRF token.
  $(document).on("ajaxSend", function (event, xhr) {
    if (key) {
      xhr.setRequestHeader("Idempotency-Key", key);
    }
    key = "";
  });

  function post(form) {
    const url = form.getAttribute("action");
    const data = new FormData(form);
    // Masked anew in every page, it would make every form another request. The header has it, too.
    data.delete("csrfmiddlewaretoken");
    $.ajax({
      url: url,
      method: "POST",
      data: data,
      contentType: false, // the browser knows the boundary
      processData: false,
      headers: { Accept: "text/html; q=1.0, */*" },
    }).always(function (data, status, xhr) {
      const response = status === "success" ? xhr : data;
      const type = response.getResponseHeader("Content-Type") || "";
      if (type.toLowerCase().startsWith("text/html")) {
        window.replaceDocument(response.responseText);
        history.replaceState({}, "", url);
        window.scroll(0, 0);
      } else {
        window.location = url;
      }
    });
  }
})(window.jQuery);
