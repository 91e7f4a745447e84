"use strict";
// Draws the page's charts from the JSON beside them, in the reader's theme and width; sorts and filters its tables.
(() => {
  const NARROW = 640;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  // every colour that the dark theme replaces, wherever it stands in a chart
  const recoloured = (value, map) => {
    if (typeof value === "string") return map[value] ?? value;
    if (Array.isArray(value)) return value.map((v) => recoloured(v, map));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, k === "bdata" ? v : recoloured(v, map)]));
    }
    return value;
  };

  // Panels that stand side by side go one below another, each with its title and its legend.
  const stacked = (data, layout) => {
    const axis = (id) => layout[id.replace(/^([xy])/, "$1axis")] || {};
    const seen = new Map();
    for (const trace of data) {
      const x = trace.xaxis || "x", y = trace.yaxis || "y";
      if (!axis(y).overlaying) seen.set(x + " " + y, { x, y, dx: axis(x).domain || [0, 1], dy: axis(y).domain || [0, 1] });
    }
    const panels = [...seen.values()].sort((a, b) => b.dy[1] - a.dy[1] || a.dx[0] - b.dx[0]);
    const columns = new Set(panels.map((p) => p.dx[0])).size;
    if (columns < 2 && panels.every((p) => p.dx[1] - p.dx[0] > 0.9)) return;
    const rows = new Set(panels.map((p) => p.dy[0])).size;
    const legends = Object.keys(layout).filter((k) => /^legend\d+$/.test(k));
    const margin = layout.margin || {};
    const room = (margin.t || 0) + (legends.length ? 48 : margin.b || 0);
    const each = Math.max(190, Math.min(300, (layout.height - room) / rows));
    const gap = legends.length ? 190 : 84;
    const total = panels.length * each + (panels.length - (legends.length ? 0 : 1)) * gap;
    const old = layout.height - (margin.t || 0) - (margin.b || 0);
    if (layout.legend && layout.legend.y > 1) layout.legend.y = 1 + ((layout.legend.y - 1) * old) / total;
    layout.height = total + room;
    if (legends.length) layout.margin = { ...margin, b: 48 };
    panels.forEach((p, k) => {
      const top = 1 - (k * (each + gap)) / total;
      p.to = [Math.max(0, top - each / total), top];
    });
    const near = (a, b) => Math.abs(a - b) < 1e-6;
    for (const note of layout.annotations || []) {
      if (note.xref !== "paper" || note.yref !== "paper") continue;
      const p = panels.find((q) => near(note.y, q.dy[1]) && near(note.x, (q.dx[0] + q.dx[1]) / 2));
      if (p) { note.x = 0.5; note.y = p.to[1]; }
    }
    for (const p of panels) {
      const x = (layout[p.x.replace("x", "xaxis")] ||= {}), y = (layout[p.y.replace("y", "yaxis")] ||= {});
      x.domain = [0, 1]; y.domain = p.to;
      delete x.showticklabels; delete y.showticklabels;
      if (y.matches) { const first = axis(y.matches); for (const key of ["tickvals", "ticktext", "tickmode"]) if (first[key] && !y[key]) y[key] = first[key]; }
    }
    [layout.legend && legends.length ? "legend" : null, ...legends].filter(Boolean).forEach((key, k) => {
      if (panels[k]) Object.assign(layout[key], { x: 0, y: panels[k].to[0] - 54 / total, yanchor: "top", orientation: "v" });
    });
  };

  // words between words on two lines, where one is too long for a narrow chart
  const folded = (text, most) => (text.length > most ? text.replace(new RegExp(`^(.{${Math.floor(most / 2)},${most}})\\s`), "$1<br>") : text);
  // of ticks that are named by hand as many as fit beside each other
  const thinned = (axis, width) => {
    const longest = Math.max(...axis.ticktext.map((text) => text.length));
    const every = Math.ceil((axis.ticktext.length * (longest + 3) * 6.5) / width);
    const kept = (values) => Array.from(values).filter((_, k) => k % every === 0);
    if (every > 1) Object.assign(axis, { tickvals: kept(axis.tickvals), ticktext: kept(axis.ticktext) });
  };

  const drawn = (spec, width) => {
    const night = dark.matches && !printing;
    const chart = recoloured(spec, night ? read("theme") : {});
    const layout = chart.layout;
    if (width < NARROW) {
      const shared = layout.template?.layout || {};
      for (const part of ["font", "margin", "legend"]) layout[part] = { ...shared[part], ...layout[part] };
      stacked(chart.data, layout);
      layout.font = { ...layout.font, size: 11 };
      layout.margin = { ...layout.margin, l: 40, r: 20 };
      for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key) && layout[key].title) {
        const title = layout[key].title;
        title.font = { ...title.font, size: 11 };
        if (key.startsWith("x") && title.text) title.text = folded(title.text, 46);
      }
      for (const key of Object.keys(layout)) {
        const axis = layout[key];
        if (/^xaxis/.test(key) && Array.isArray(axis.ticktext) && Array.isArray(axis.tickvals) && !axis.tickangle) thinned(axis, (width - 180) * (axis.domain ? axis.domain[1] - axis.domain[0] : 1));
      }
      for (const note of layout.annotations || []) {
        note.font = { ...note.font, size: 11 };
        if (note.xref === "paper" && note.yref === "paper" && note.text) note.text = folded(note.text, 34);
      }
    }
    return chart;
  };

  // the words at the bottom right go below ticks and titles of the axes, however many lines these take
  const parted = (div) => {
    const title = div.querySelector(".g-gtitle text");
    if (!title) return;
    const words = title.getBoundingClientRect();
    const beside = (box) => box.right > words.left && box.bottom > words.top - 2;
    const below = [...div.querySelectorAll("g")].filter((part) => /^(x\d*tick|g-x\d*title)$/.test(part.getAttribute("class")));
    const lowest = below.map((part) => part.getBoundingClientRect()).filter(beside).reduce((low, box) => Math.max(low, box.bottom), 0);
    if (!lowest) return;
    const more = Math.ceil(lowest - words.top) + 4, { _size: size, height } = div._fullLayout;
    div.style.height = `${height + more}px`;
    Plotly.relayout(div, { height: height + more, "margin.b": size.b + more });
  };

  const filled = new Map(); // charts whose content the reader chose
  const draw = (div) => {
    if (div.offsetParent === null && !printing) return; // in a part that is hidden; drawn when it is shown
    const spec = structuredClone(filled.get(div.id)) || JSON.parse(document.querySelector(`script[data-chart="${div.id}"]`).textContent);
    const chart = drawn(spec, div.clientWidth);
    div.style.height = `${chart.layout.height}px`;
    Plotly.react(div, chart.data, chart.layout, { ...read("chart-settings"), responsive: true, ...(div.clientWidth < NARROW ? { displayModeBar: false } : {}) });
    parted(div);
    div.dispatchEvent(new Event("drawn"));
  };
  const drawAll = () => document.querySelectorAll(".plotly-graph-div").forEach((div) => {
    try { draw(div); } catch (error) { reportError(error); }
  });

  // a header with data-sort sorts its table by the cells' data-value, else by their text
  const value = (row, k) => { const cell = row.cells[k]; return cell.dataset.value ?? cell.textContent.trim(); };
  const sorted = (header) => {
    const table = header.closest("table"), k = header.cellIndex, body = table.tBodies[0];
    const up = header.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const compare = (a, b) => {
      const [x, y] = [value(a, k), value(b, k)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is not known stays last
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    };
    [...body.rows].sort(compare).forEach((row) => body.append(row));
  };
  const filtered = (input) => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  };
  // a tick box with data-trace shows or hides the traces of that name in its chart
  const ticked = (chart) => {
    const on = new Set([...document.querySelectorAll(`input[data-for="${chart.id}"]:checked`)].map((box) => box.dataset.trace));
    if (chart.data) Plotly.restyle(chart, { visible: chart.data.map((trace) => trace.meta === undefined || on.has(trace.meta)) });
  };

  // a select with data-shows="part" shows the element [data-part] of its value and hides its siblings
  const shown = (select) => {
    for (const part of document.querySelectorAll(`[data-${select.dataset.shows}]`)) {
      part.hidden = part.getAttribute(`data-${select.dataset.shows}`) !== select.value;
      if (!part.hidden) part.querySelectorAll(".plotly-graph-div").forEach(draw);
    }
  };

  // the list of trades and the price chart of a tear sheet, by the reader's choice
  const PAGE = 25;
  const tradeList = () => {
    const { trades, prices } = read("tear-data");
    const [symbol, strategy, side, reason] = ["symbol", "strategy", "side", "reason"].map((k) => document.getElementById(`trade-${k}`));
    const options = (select, names, all) => [...(all ? [["", "all"]] : []), ...names].forEach(([v, text]) => {
      const one = document.createElement("option"); one.value = v; one.textContent = text; select.append(one);
    });
    const named = (key) => trades[`${key}_names`].map((text, k) => [String(k), text]);
    options(symbol, named("symbol"), true); options(strategy, named("strategy"), true); options(reason, named("reason"), true);
    options(side, [["1", "long"], ["-1", "short"]], true);
    const first = trades.symbol_names.findIndex((name) => prices[name]);
    symbol.value = String(Math.max(0, first));
    const chart = document.getElementById("chart-tear_price");
    const spec = JSON.parse(document.querySelector(`script[data-chart="${chart.id}"]`).textContent);
    const body = document.getElementById("trade-list").tBodies[0], more = document.getElementById("trade-more");
    let chosen = [], length = PAGE;
    const counted = (n) => n.toLocaleString("en-US");
    const words = (k) => [trades.strategy_names[trades.strategy[k]], trades.symbol_names[trades.symbol[k]], trades.side[k] > 0 ? "long" : "short",
      trades.entry_time[k], trades.entry_price[k], trades.exit_time[k], trades.exit_price[k], `${(100 * trades.net_return[k]).toFixed(2)} %`,
      trades.reason_names[trades.reason[k]].replaceAll("_", " "), trades.bars_held[k]];
    const LEFT = [1, 2, 3, 5, 8];
    const list = () => {
      body.replaceChildren(...chosen.slice(0, length).map((k) => {
        const row = document.createElement("tr");
        words(k).forEach((text, column) => {
          const cell = document.createElement("td"); cell.textContent = text;
          if (LEFT.includes(column)) cell.className = "left";
          if (column === 7 && trades.net_return[k] < 0) cell.className = "low";
          row.append(cell);
        });
        return row;
      }));
      more.hidden = chosen.length <= length;
      document.getElementById("trade-count").textContent = `${counted(Math.min(length, chosen.length))} of ${counted(chosen.length)} chosen trades, of ${counted(trades.symbol.length)} on this page.`;
    };
    const choose = () => {
      const wanted = [[symbol, "symbol"], [strategy, "strategy"], [side, "side"], [reason, "reason"]];
      chosen = [...trades.symbol.keys()].filter((k) => wanted.every(([select, key]) => select.value === "" || String(trades[key][k]) === select.value));
      length = PAGE; list();
      const name = trades.symbol_names[symbol.value], series = prices[name];
      const of = (keep, time, price) => { const at = series ? chosen.filter(keep) : []; return { x: at.map((k) => trades[time][k]), y: at.map((k) => trades[price][k]) }; };
      const parts = [series ? { x: series.time, y: series.close } : { x: [], y: [] },
        of((k) => trades.side[k] > 0, "entry_time", "entry_price"), of((k) => trades.side[k] < 0, "entry_time", "entry_price"),
        of((k) => trades.net_return[k] > 0, "exit_time", "exit_price"), of((k) => trades.net_return[k] <= 0, "exit_time", "exit_price")];
      const own = structuredClone(spec);
      parts.forEach((part, k) => Object.assign(own.data[k], part));
      own.layout.yaxis.title.text = series ? `price of ${name.replace(/[<>&]/g, "")}` : "choose a symbol to see its price";
      filled.set(chart.id, own); draw(chart);
    };
    [symbol, strategy, side, reason].forEach((select) => select.addEventListener("change", choose));
    more.addEventListener("click", () => { length += 4 * PAGE; list(); });
    choose();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("select[data-shows]").forEach((select) => select.addEventListener("change", () => shown(select)));
    document.querySelectorAll("table.sortable th[data-sort]").forEach((th) => th.addEventListener("click", () => sorted(th)));
    document.querySelectorAll("input[data-filter]").forEach((input) => input.addEventListener("input", () => filtered(input)));
    document.querySelectorAll("input[data-for]").forEach((box) => {
      const chart = document.getElementById(box.dataset.for);
      box.addEventListener("change", () => ticked(chart));
    });
    for (const id of new Set([...document.querySelectorAll("input[data-for]")].map((box) => box.dataset.for))) {
      const chart = document.getElementById(id);
      if (chart) chart.addEventListener("drawn", () => ticked(chart));
    }
    document.querySelectorAll("[data-overtaken]").forEach((box) => { box.hidden = Date.now() <= Date.parse(box.dataset.overtaken); });
    drawAll();
    if (document.getElementById("trade-list")) tradeList();
    let narrow = window.innerWidth < NARROW;
    window.addEventListener("resize", () => {
      if (narrow !== window.innerWidth < NARROW) { narrow = !narrow; drawAll(); }
    });
    dark.addEventListener("change", drawAll);
    window.addEventListener("beforeprint", () => { printing = true; drawAll(); });
    window.addEventListener("afterprint", () => { printing = false; drawAll(); });
  });
})();
