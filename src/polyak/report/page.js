// Draws the charts, which stand in the page as JSON, in the colours that suit its background.
"use strict";

// Of M. Okabe, K. Ito, "Color universal design", 2008: told apart with any kind of colour vision. Of their eight, those with a
// contrast of 3 to the background, or nearly.
const THEMES = {
  light: { ink: "#1a1a1a", grid: "#d8d8d8", ground: "#ffffff", lines: ["#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7"] },
  dark: { ink: "#eaeaea", grid: "#3d434d", ground: "#22252b", lines: ["#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7"] },
};
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const touched = window.matchMedia("(pointer: coarse)");

function template(theme) {
  const axis = { gridcolor: theme.grid, linecolor: theme.grid, zerolinecolor: theme.ink, tickcolor: theme.grid };
  return {
    layout: {
      font: { color: theme.ink, family: "system-ui, sans-serif", size: 12 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis,
      yaxis: axis,
      hoverlabel: { bgcolor: theme.ground, font: { color: theme.ink } },
    },
  };
}

function draw(chart) {
  const figure = JSON.parse(chart.nextElementSibling.textContent);
  const theme = dark.matches ? THEMES.dark : THEMES.light;
  for (const trace of figure.data) {
    if (trace.type !== "scatter") continue;
    const colour = theme.lines[trace.meta];
    if (trace.fill) trace.fillcolor = colour + "33";
    trace.line = { ...trace.line, color: colour };
    trace.marker = { ...trace.marker, color: colour };
  }
  figure.layout.template = template(theme);
  figure.layout.dragmode = touched.matches ? false : "zoom"; // a finger scrolls the page
  return Plotly.react(chart, figure.data, figure.layout, { responsive: true, displayModeBar: false });
}

const charts = Array.from(document.querySelectorAll(".chart"));
const drawAll = () => charts.forEach(draw);
dark.addEventListener("change", drawAll);
drawAll();
