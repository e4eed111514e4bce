// Table of runs: two to eight of them can be compared.
const state = () => {
  const form = document.getElementById("compare-form");
  if (!form) return;
  const chosen = form.querySelectorAll("input[name=run]:checked").length;
  document.getElementById("compare-button").disabled = chosen < 2 || chosen > 8;
};
document.addEventListener("change", state);
document.addEventListener("renewed", state);
state();
