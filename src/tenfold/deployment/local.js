// Classifies in the browser what the service's page would send to a server.
"use strict";
window.local = (() => {
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1;  // More need headers that servers of files don't send.
  ort.env.wasm.wasmPaths = new URL(".", document.baseURI).href;
  let facts = null, session = null;

  async function model() {
    facts = await (await fetch("model.json")).json();
    session = ort.InferenceSession.create("model.onnx", {executionProviders: ["wasm"]});
    session.catch(() => {});  // Said of the first image.
    return facts;
  }

  // As data/decoding.py does it: Pillow's bicubic filter on the middle square, of an image that a
  // whole factor made smaller before where it is far too large.
  async function decode(blob) {
    const [high, wide] = facts.image_size;
    let seen = await windowed(blob, facts.window);
    if (!seen) {
      const image = await createImageBitmap(blob, {colorSpaceConversion: "none"}).catch(() => {
        throw new Error("It is no image of a kind that this browser can read.");
      });
      const {width, height} = image;
      const pen = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
      pen.fillStyle = "white";
      pen.fillRect(0, 0, width, height);
      pen.drawImage(image, 0, 0);
      seen = {data: pen.getImageData(0, 0, width, height).data, width, height};
    }
    const {width, height} = seen;
    if (width !== wide || height !== high) {
      if (wide !== high) throw new Error("It has " + width + "x" + height + " pixels where this model takes " + wide + "x" + high + ".");
      // JPEG is decoded at an eighth, a quarter or a half where twice the wanted size remains.
      const isJpeg = (await blob.slice(0, 2).arrayBuffer().then(head => new Uint16Array(head)[0])) === 0xd8ff;
      const room = Math.min(Math.floor(width / (2 * wide)), Math.floor(height / (2 * wide)));
      if (isJpeg && room >= 2) seen = reduce(seen, room >= 8 ? 8 : room >= 4 ? 4 : 2);
      seen = fit(seen, wide);
    }
    const pixels = new Uint8Array(3 * wide * high);
    for (let i = 0; i < wide * high; i++) pixels.set(seen.data.subarray(4 * i, 4 * i + 3), 3 * i);
    return pixels;
  }

  // A PNG of sixteen bits, which browsers cut to eight, in eight by the model's window and on white;
  // null for any other file, and for all but grey without a window, which the predictor cuts as well.
  async function windowed(blob, window) {
    const [low, high] = window.length ? window : [0, 65535];
    const bytes = new Uint8Array(await blob.arrayBuffer()), view = new DataView(bytes.buffer);
    const channels = (window.length ? {0: 1, 2: 3, 4: 2, 6: 4} : {0: 1})[bytes[25]];
    if (bytes.length < 33 || view.getUint32(0) !== 0x89504e47 || bytes[24] !== 16 || !channels) return null;
    if (bytes[28]) throw new Error("It is an interlaced PNG of sixteen bits, which this page can't read.");
    const width = view.getUint32(16), height = view.getUint32(20), parts = [], clear = [];
    for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
      const name = view.getUint32(at + 4);
      if (name === 0x49444154) parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));  // IDAT
      if (name === 0x74524e53) for (let c = 0; c < channels; c++) clear.push(view.getUint16(at + 8 + 2 * c));  // tRNS
    }
    const unpacked = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = new Uint8Array(await new Response(unpacked).arrayBuffer().catch(() => {
      throw new Error("It is a damaged PNG file.");
    }));
    const step = 2 * channels, length = step * width, lines = new Uint8Array(length * height);
    for (let y = 0, from = 0; y < height; y++) {
      const filter = raw[from++];
      for (let x = 0, to = y * length; x < length; x++, to++) {
        const left = x < step ? 0 : lines[to - step], above = y ? lines[to - length] : 0;
        const corner = y && x >= step ? lines[to - length - step] : 0;
        lines[to] = raw[from++] + [0, left, above, (left + above) >> 1, nearest(left, above, corner)][filter];
      }
    }
    const data = new Uint8ClampedArray(4 * width * height).fill(255);
    for (let i = 0; i < width * height; i++) {
      const value = c => 256 * lines[step * i + 2 * c] + lines[step * i + 2 * c + 1];
      const isClear = clear.length && clear.every((each, c) => each === value(c));
      const opacity = channels % 2 ? (isClear ? 0 : 255) : lines[step * (i + 1) - 2];
      for (let c = 0; c < 3; c++) {
        const shown = Math.min(Math.max(value(channels < 3 ? 0 : c), low), high);
        const shade = Math.floor((shown - low) * 255 / (high - low) + 0.5);
        data[4 * i + c] = Math.floor((shade * opacity + 255 * (255 - opacity)) / 255 + 0.5);
      }
    }
    return {data, width, height};
  }

  // The fourth filter of PNG: whichever neighbour is nearest to their plane.
  function nearest(left, above, corner) {
    const [a, b, c] = [left, above, corner].map(each => Math.abs(left + above - corner - each));
    return a <= b && a <= c ? left : b <= c ? above : corner;
  }

  function reduce({data, width, height}, factor) {
    const across = Math.ceil(width / factor), down = Math.ceil(height / factor);
    const out = new Uint8ClampedArray(4 * across * down);
    for (let y = 0; y < down; y++) for (let x = 0; x < across; x++) {
      const right = Math.min(width, (x + 1) * factor), low = Math.min(height, (y + 1) * factor);
      const sums = [0, 0, 0];
      for (let v = y * factor; v < low; v++) for (let u = x * factor; u < right; u++) {
        for (let c = 0; c < 3; c++) sums[c] += data[4 * (v * width + u) + c];
      }
      const number = (right - x * factor) * (low - y * factor);
      for (let c = 0; c < 3; c++) out[4 * (y * across + x) + c] = Math.floor(sums[c] / number + 0.5);
    }
    return {data: out, width: across, height: down};
  }

  function crop({data, width}, left, top, across, down) {
    const out = new Uint8ClampedArray(4 * across * down);
    for (let y = 0; y < down; y++) {
      const from = 4 * ((top + y) * width + left);
      out.set(data.subarray(from, from + 4 * across), 4 * y * across);
    }
    return {data: out, width: across, height: down};
  }

  function fit(image, size) {
    let side = Math.min(image.width, image.height);
    let left = (image.width - side) / 2, top = (image.height - side) / 2;
    const factor = Math.floor(side / size / 2);
    if (factor > 1) {
      const support = 1.5 * side / size;
      const [x, y] = [left, top].map(edge => Math.max(0, Math.trunc(edge - support)));
      const right = Math.min(image.width, Math.ceil(left + side + support));
      const low = Math.min(image.height, Math.ceil(top + side + support));
      image = reduce(crop(image, x, y, right - x, low - y), factor);
      [left, top, side] = [(left - x) / factor, (top - y) / factor, side / factor];
    }
    const across = weights(image.width, left, side, size), down = weights(image.height, top, side, size);
    const {data, width, height} = image;
    const rows = filtered(data, across, size, height, (place, line) => line * width + place);
    return {data: filtered(rows, down, size, size, (place, line) => place * size + line, true), width: size, height: size};
  }

  function weights(length, from, side, size) {
    const scale = side / size, stretch = Math.max(scale, 1), support = 2 * stretch;
    const cubic = x => x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    return Array.from({length: size}, (_, i) => {
      const center = from + (i + 0.5) * scale;
      const first = Math.max(0, Math.trunc(center - support + 0.5));
      const last = Math.min(length, Math.trunc(center + support + 0.5));
      const values = Array.from({length: last - first}, (_, k) => cubic(Math.abs((k + first - center + 0.5) / stretch)));
      const sum = values.reduce((a, b) => a + b, 0);
      return {first, values: values.map(value => value / sum)};
    });
  }

  // `lines` lines of pixels, each brought to `size`; across, or down where `isDown`.
  function filtered(data, kernels, size, lines, place, isDown = false) {
    const out = new Uint8ClampedArray(4 * size * lines);
    for (let line = 0; line < lines; line++) for (let i = 0; i < size; i++) {
      const {first, values} = kernels[i], to = 4 * (isDown ? i * lines + line : line * size + i);
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < values.length; k++) sum += values[k] * data[4 * place(first + k, line) + c];
        out[to + c] = Math.floor(sum + 0.5);
      }
    }
    return out;
  }

  // The views of deployment/predictor.py: mirrored, and shifted by a pixel to two corners.
  function view(pixels, {mirror = false, shift = 0}) {
    const [high, wide] = facts.image_size, out = new Uint8Array(pixels.length);
    const inside = (place, length) => place < 0 ? -place : place >= length ? 2 * length - 2 - place : place;
    for (let y = 0; y < high; y++) for (let x = 0; x < wide; x++) {
      const u = inside((mirror ? wide - 1 - x : x) + shift, wide), v = inside(y + shift, high);
      out.set(pixels.subarray(3 * (v * wide + u), 3 * (v * wide + u) + 3), 3 * (y * wide + x));
    }
    return out;
  }

  async function run(views, wanted = ["logits"]) {
    const content = new Uint8Array(views.length * views[0].length);
    views.forEach((each, i) => content.set(each, i * each.length));
    const input = new ort.Tensor("uint8", content, [views.length, ...facts.image_size, 3]);
    const loaded = await session.catch(error => {
      throw new Error("The model can't be loaded here (" + error.message + "); load the page again.");
    });
    return loaded.run({pixels: input}, wanted);
  }

  async function logitsOf(views) {
    const number = facts.class_names.length, {logits} = await run(views);
    return views.map((_, i) => Array.from(logits.data.slice(i * number, (i + 1) * number)));
  }

  function softmax(logits, temperature = 1) {
    const highest = Math.max(...logits), powers = logits.map(value => Math.exp((value - highest) / temperature));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map(value => value / sum);
  }

  async function logits(pixels) {
    const [own] = await logitsOf([pixels]), {kind, below} = facts.views;
    if (kind === "one" || Math.max(...softmax(own)) >= below) return own;
    const views = [{mirror: true}];
    if (kind === "six") for (const shift of [-1, 1]) views.push({shift}, {mirror: true, shift});
    const [mirrored, ...others] = await logitsOf(views.map(each => view(pixels, each)));
    return own.map((value, i) => {
      const mean = (value + mirrored[i]) / 2;
      return others.length ? mean / 2 + others.reduce((sum, each) => sum + each[i], 0) / 8 : mean;
    });
  }

  function shown(pixels) {
    const [high, wide] = facts.image_size, canvas = document.createElement("canvas");
    canvas.width = wide;
    canvas.height = high;
    const pen = canvas.getContext("2d"), data = pen.createImageData(wide, high);
    for (let i = 0; i < wide * high; i++) data.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    pen.putImageData(data, 0, 0);
    return canvas.toDataURL();
  }

  async function predict(blob, details) {
    const pixels = await decode(blob);
    const shares = softmax(await logits(pixels), facts.temperature);
    const probabilities = Object.fromEntries(facts.class_names.map((name, i) => [name, shares[i]]));
    const confidence = Math.max(...shares), label = facts.class_names[shares.indexOf(confidence)];
    const reply = {label, confidence, unsure: confidence < facts.threshold, probabilities};
    for (const {class_name, threshold} of facts.operating_points) {
      reply.positive = {...reply.positive, [class_name]: probabilities[class_name] >= threshold};
    }
    if (details) reply.seen = shown(pixels);
    if (details && facts.has_map) {
      const {where} = await run([pixels], ["where"]), [, height, width] = where.dims;
      const highest = Math.max(...where.data) || 1;
      reply.where = Array.from({length: height}, (_, y) => Array.from(where.data.slice(y * width, (y + 1) * width), value => value / highest));
    }
    return reply;
  }

  return {model, predict};
})();
