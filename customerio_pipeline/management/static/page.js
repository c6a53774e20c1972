// Copy buttons, and forms that are sent once. Everything else works without a script.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  const said = document.querySelector(".copied");
  button.hidden = false;
  field.addEventListener("focus", () => field.select());
  button.addEventListener("click", async () => {
    field.select();
    let isCopied = true;
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      // No permission, or no encrypted connection: the older way needs neither.
      isCopied = document.execCommand("copy");
    }
    said.textContent = isCopied ? "Copied." : "Press Ctrl+C to copy.";
  });
}

for (const form of document.querySelectorAll("form[data-once]")) {
  form.addEventListener("submit", () => {
    // After the browser has taken the form: a disabled button would not be sent.
    setTimeout(() => form.querySelectorAll("button").forEach((button) => (button.disabled = true)));
  });
}

// The way back to a page that showed a secret, or sent a form, finds neither as it was left.
window.addEventListener("pagehide", () => {
  document.querySelectorAll(".secret").forEach((field) => (field.value = ""));
  document.querySelectorAll("button").forEach((button) => (button.disabled = false));
});
