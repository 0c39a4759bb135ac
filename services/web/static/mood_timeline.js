// The timeline of one stream: stacked areas, gaps with their reason, faces per frame. Draws what the server sends; asks it for
// another window when the visitor zooms or pans, so the server picks the resolution.
import { echarts } from "nicegui-echart";

const LEAST_MS = 10_000;
const [LEFT, RIGHT] = [46, 16];
const HATCHES = {
  no_face: "M-2 10 10 -2M-2 2 2 -2M6 10 10 6",
  unreadable: "M-1 4H9M4 -1V9",
  corrupt: "M4 -1V9",
  overloaded: "M0 0 8 8M0 8 8 0",
  not_sampled: "M4 3.9v.2M0 0v.2",
  offline: "M-2 -2 10 10M-2 6 2 10M6 -2 10 2",
};
const percent = (share) => `${Math.round(share * 100)}%`;
const two = (number) => String(number).padStart(2, "0");

export default {
  template: `
    <div>
      <div ref="chart" class="chart" tabindex="0" role="group" :class="{dragging: grip}" :aria-label="label"
        aria-describedby="chart-keys" @keydown="press"></div>
      <p id="chart-keys" class="soft" style="margin:6px 0 0">Drag to move, pinch <span class="keys">or Ctrl + wheel</span> to zoom, click a point to read it.
        <span class="keys">Keys: + and - zoom, Shift + arrows move, arrows pick a point, End follows the newest.</span></p>
      <p class="picked" aria-live="polite" v-if="told">{{ told }}</p>
    </div>`,
  props: { payload: Object, label: String, colors: Object, stack: Array },
  data: () => ({ told: "", grip: false }),
  mounted() {
    this.chart = echarts.init(this.$refs.chart, null, { renderer: "canvas" });
    this.window = null; // what the visitor turned to and the server has not answered yet, in ms
    this.picked = null;
    this.pointers = new Map();
    const element = this.$refs.chart;
    element.addEventListener("wheel", this.wheel, { passive: false });
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) element.addEventListener(name, this[name]);
    this.sizes = new ResizeObserver(() => this.chart.resize());
    this.sizes.observe(element);
    this.themes = new MutationObserver(this.draw);
    this.themes.observe(document.body, { attributeFilter: ["class"] });
    this.draw();
  },
  beforeUnmount() {
    this.sizes.disconnect();
    this.themes.disconnect();
    this.chart.dispose();
  },
  watch: {
    payload() {
      if (this.grip) return; // under the visitor's finger nothing jumps; the answer to the move comes next
      this.window = null;
      this.draw();
    },
  },
  methods: {
    draw() {
      if (!this.payload || !this.chart) return;
      this.chart.setOption(this.option(), { notMerge: true });
      this.mark();
    },
    ink() {
      const style = getComputedStyle(document.body);
      return (name) => style.getPropertyValue(name).trim();
    },
    span() {
      const { start, end } = this.window ?? this.payload;
      return end > start ? [start, end] : [start, start + LEAST_MS];
    },
    option() {
      const ink = this.ink();
      const { times, emotions, faces, step, gaps } = this.payload;
      const [min, max] = this.span();
      const axis = {
        type: "time", min, max, axisLine: { lineStyle: { color: ink("--line") } }, axisTick: { show: false }, splitLine: { show: false },
        axisLabel: { color: ink("--soft"), hideOverlap: true, alignMinLabel: "left", alignMaxLabel: "right", formatter: (at) => this.clock(at, false) },
      };
      const font = { fontFamily: "system-ui, sans-serif", fontSize: 12 };
      const series = this.stack.map((emotion) => ({
        name: emotion, type: "line", stack: "mood", symbol: "none", connectNulls: false, silent: true, animation: false,
        data: times.map((at, index) => [at, emotions[emotion][index]]),
        lineStyle: { width: 0.7, color: ink("--edge") }, itemStyle: { color: this.colors[emotion] },
        areaStyle: { color: this.colors[emotion], opacity: 0.92 },
      }));
      series.push({
        type: "line", data: [], animation: false, markArea: {
          silent: true,
          data: gaps.map((gap) => [
            { xAxis: gap.start, itemStyle: { color: this.hatch(gap.reason, ink) }, label: this.gapLabel(gap, ink) },
            { xAxis: gap.end },
          ]),
        },
      });
      series.push({ type: "line", data: [], id: "pick", animation: false, markLine: { silent: true, symbol: "none", data: [] } });
      const edges = faces.length ? [...faces, [faces.at(-1)[0] + step, faces.at(-1)[1]]] : [];
      series.push({
        name: "faces", type: "line", step: "end", symbol: "none", xAxisIndex: 1, yAxisIndex: 1, data: edges, silent: true, animation: false,
        lineStyle: { width: 1, color: ink("--soft") }, areaStyle: { color: ink("--soft"), opacity: 0.35 },
      });
      const sides = { left: LEFT, right: RIGHT, outerBoundsMode: "none" };
      const value = { type: "value", min: 0, axisLine: { show: false }, axisTick: { show: false } };
      return {
        animation: false, textStyle: font, backgroundColor: "transparent",
        grid: [{ ...sides, top: 12, bottom: 104 }, { ...sides, height: 44, bottom: 28 }],
        xAxis: [{ ...axis, gridIndex: 0, axisLabel: { show: false } }, { ...axis, gridIndex: 1 }],
        yAxis: [
          { ...value, max: 1, interval: 0.25, axisLabel: { color: ink("--soft"), formatter: percent }, splitLine: { lineStyle: { color: ink("--line") } } },
          { ...value, gridIndex: 1, max: (range) => Math.max(1, Math.ceil(range.max || 0)), splitNumber: 1, axisLabel: { color: ink("--soft"), showMinLabel: true }, splitLine: { show: false },
            name: "faces", nameLocation: "middle", nameGap: 28, nameTextStyle: { color: ink("--soft") } },
        ],
        tooltip: {
          trigger: "axis", confine: true, transitionDuration: 0, backgroundColor: ink("--card"), borderColor: ink("--line"),
          textStyle: { color: ink("--ink"), fontSize: 13 }, formatter: (rows) => this.hover(rows), axisPointer: { lineStyle: { color: ink("--ink") } },
        },
        series,
      };
    },
    hatch(reason, ink) {
      const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="${ink("--gap")}"/>` +
        `<path d="${HATCHES[reason]}" stroke="${ink("--hatch")}" stroke-width="1.2" stroke-linecap="round" fill="none"/></svg>`;
      return { image: `data:image/svg+xml,${encodeURIComponent(svg)}`, repeat: "repeat" };
    },
    gapLabel(gap, ink) {
      const [min, max] = this.span();
      const share = (Math.min(gap.end, max) - Math.max(gap.start, min)) / (max - min);
      return {
        show: share > 0.05, formatter: gap.label, position: "inside", color: ink("--soft"), rotate: share > 0.12 ? 0 : 90,
        backgroundColor: ink("--gap"), padding: [3, 7], borderRadius: 4, fontSize: 12,
      };
    },
    clock(ms, exact) {
      if (this.payload.origin !== null) {
        const position = Math.round((ms - this.payload.origin) / 1000);
        const [sign, seconds] = [position < 0 ? "−" : "", Math.abs(position)]; // zoomed out, the axis begins before the file
        const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
        return sign + (hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`);
      }
      const at = new Date(ms);
      const [min, max] = this.span();
      const text = `${two(at.getHours())}:${two(at.getMinutes())}`;
      return exact || max - min < 1_200_000 ? `${text}:${two(at.getSeconds())}` : text;
    },
    pointAt(ms) {
      const { points, step } = this.payload;
      if (!points.length) return null;
      const index = Math.floor((ms - points[0].start) / step);
      return index >= 0 && index < points.length ? index : null;
    },
    describe(point) {
      const time = `${this.clock(point.start, true)} – ${this.clock(point.start + this.payload.step, true)}`;
      const faces = point.faces === null ? "not looked at" : `${point.faces} ${point.faces === 1 ? "face" : "faces"} per frame`;
      const mood = point.dominant ? `mostly ${point.dominant} (${percent(point.share)})` : point.empty;
      return [time, faces, mood];
    },
    hover(rows) {
      const index = this.pointAt(rows[0].axisValue);
      if (index === null) return "";
      const [time, faces, mood] = this.describe(this.payload.points[index]);
      return `<b>${time}</b><br>${faces}<br>${mood}`;
    },
    pick(index) {
      const last = this.payload.points.length - 1;
      if (index === null || last < 0) return;
      this.picked = this.payload.points[Math.max(0, Math.min(last, index))].start;
      const point = this.payload.points[this.pointAt(this.picked)];
      this.told = this.describe(point).join(" · ");
      this.$emit("pick", point.start);
      this.mark();
    },
    mark() {
      const data = this.picked === null ? [] : [{ xAxis: this.picked + this.payload.step / 2 }];
      const lineStyle = { color: this.ink()("--ink"), width: 2, type: "solid" };
      this.chart.setOption({ series: [{ id: "pick", markLine: { silent: true, symbol: "none", animation: false, label: { show: false }, lineStyle, data } }] });
    },
    turn(start, end) {
      this.window = { start: Math.round(start), end: Math.round(end) };
      this.chart.setOption({ xAxis: [{ min: start, max: end }, { min: start, max: end }] });
      clearTimeout(this.asking);
      this.asking = setTimeout(() => this.$emit("window", { ...this.window }), 160);
    },
    zoom(factor, at = 0.5) {
      const [start, end] = this.span();
      const span = Math.max(LEAST_MS, (end - start) * factor);
      const middle = start + (end - start) * at;
      this.turn(middle - span * at, middle - span * at + span);
    },
    pan(share) {
      const [start, end] = this.span();
      this.turn(start + (end - start) * share, end + (end - start) * share);
    },
    place(event) {
      const box = this.$refs.chart.getBoundingClientRect();
      return (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    },
    wheel(event) {
      if (!event.ctrlKey) return; // without it the wheel scrolls the page
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, Math.max(0, Math.min(1, this.place(event))));
    },
    pointerdown(event) {
      this.pointers.set(event.pointerId, this.place(event));
      this.from = { window: this.span(), places: [...this.pointers.values()], moved: false };
    },
    pointermove(event) {
      if (!this.pointers.has(event.pointerId)) return;
      this.pointers.set(event.pointerId, this.place(event));
      const [before, now] = [this.from.places, [...this.pointers.values()]];
      if (Math.abs(now[0] - before[0]) < 0.006 && now.length === 1 && !this.from.moved) return;
      this.from.moved = this.grip = true;
      const [start, end] = this.from.window;
      const span = end - start;
      if (now.length === 1) return this.turn(start - (now[0] - before[0]) * span, end - (now[0] - before[0]) * span);
      const factor = Math.max(0.05, Math.abs(before[1] - before[0])) / Math.max(0.05, Math.abs(now[1] - now[0]));
      const length = Math.max(LEAST_MS, span * factor);
      const held = start + span * (before[0] + before[1]) / 2;
      this.turn(held - length * (now[0] + now[1]) / 2, held - length * (now[0] + now[1]) / 2 + length);
    },
    pointerup(event) {
      const known = this.pointers.delete(event.pointerId);
      if (known && !this.from.moved && event.type === "pointerup") {
        const [start, end] = this.span();
        this.pick(this.pointAt(start + (end - start) * this.place(event)));
      }
      this.grip = this.pointers.size > 0 && this.from.moved;
    },
    pointercancel(event) {
      this.pointerup(event);
    },
    press(event) {
      const { points } = this.payload ?? { points: [] };
      const current = this.picked === null ? null : this.pointAt(this.picked);
      const step = (by) => this.pick(current === null ? points.length - 1 : current + by);
      const acts = {
        "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
        ArrowLeft: () => (event.shiftKey ? this.pan(-0.25) : step(-1)),
        ArrowRight: () => (event.shiftKey ? this.pan(0.25) : step(1)),
        End: () => this.$emit("follow"),
      };
      if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      acts[event.key]();
    },
    save_picture(name) {
      const place = document.createElement("div");
      place.style.cssText = "position:fixed;left:-4000px;width:1200px;height:600px";
      document.body.append(place);
      const chart = echarts.init(place, null, { renderer: "canvas", width: 1200, height: 600 });
      const ink = this.ink();
      const option = this.option();
      option.title = { text: name, subtext: this.describeWindow(), left: LEFT, top: 10, textStyle: { color: ink("--ink"), fontSize: 20 }, subtextStyle: { color: ink("--soft") } };
      option.legend = { top: 66, left: 40, icon: "roundRect", textStyle: { color: ink("--ink") }, data: [...this.stack].reverse() };
      option.grid[0].top = 104;
      chart.setOption(option);
      setTimeout(() => { // the hatches are images, which load a moment later
        const link = document.createElement("a");
        link.href = chart.getDataURL({ pixelRatio: 2, backgroundColor: ink("--card") });
        link.download = `${name}.png`;
        link.click();
        chart.dispose();
        place.remove();
      }, 250);
    },
    describeWindow() {
      const { start, end, origin } = this.payload;
      const day = origin === null ? `${new Date(start).toLocaleDateString()} ` : "";
      return `${day}${this.clock(start, true)} – ${this.clock(end, true)}`;
    },
  },
};
