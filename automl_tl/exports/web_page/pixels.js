// Decode an image file in the browser into the pixels that the model's graph expects: upright RGB on white, reduced like
// `tl predict` reduces large images (automl_tl/data/colors.py: draft, reduced). The graph itself crops, resizes and normalizes.

const JPEG_SCALES = [8, 4, 2]; // what a JPEG decoder can divide the size by
const PNG_BITS = 24; // offsets in the header
const PNG_COLOR_TYPE = 25;
const PALETTE = 3;

/**
 * Decode `file`.
 * @param {Blob} file an image
 * @param {number} shorterPx length of the shorter side that the model needs
 * @returns {Promise<{rgb: Uint8Array, width: number, height: number}>}
 */
export async function decode(file, shorterPx) {
  const head = new Uint8Array(await file.slice(0, 32).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const starts = (...bytes) => bytes.every((byte, index) => head[index] === byte);
  const isPng = starts(0x89, 0x50, 0x4e, 0x47);
  const isJpeg = starts(0xff, 0xd8, 0xff);
  const hasPalette = (isPng && head[PNG_COLOR_TYPE] === PALETTE) || starts(0x47, 0x49, 0x46);
  if (isPng && head[PNG_BITS] === 16) {
    throw new Error("A 16-bit PNG: browsers drop half of its bits. Classify it with tl predict or predict.py.");
  }

  let image = await draw(file);
  if (isJpeg) {
    // A decoder scales to the power of two that keeps both sides at least twice as long as needed.
    const shrink = Math.min(image.width, image.height) / (2 * shorterPx);
    const [width, height] = [Math.trunc(image.width / shrink), Math.trunc(image.height / shrink)];
    const fits = Math.min(Math.floor(image.width / width), Math.floor(image.height / height));
    image = reduce(image, shrink > 1 ? (JPEG_SCALES.find((scale) => scale <= fits) ?? 1) : 1);
  }
  return hasPalette ? image : reduce(image, Math.floor(Math.min(image.width, image.height) / (2 * shorterPx)));
}

/** Turned upright by EXIF, without color management, on white. */
async function draw(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This browser cannot read the file: it is damaged, no image, or of a format that browsers lack.");
  }
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("The image is too large for this browser.");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { rgb, width, height };
}

/** Average blocks of `factor` × `factor` pixels, rounded like Pillow's `Image.reduce` (Reduce.c). */
function reduce(image, factor) {
  if (factor <= 1) return image;
  const width = Math.ceil(image.width / factor);
  const height = Math.ceil(image.height / factor);
  const rgb = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y += 1) {
    const bottom = Math.min(image.height, (y + 1) * factor);
    for (let x = 0; x < width; x += 1) {
      const right = Math.min(image.width, (x + 1) * factor);
      const count = (bottom - y * factor) * (right - x * factor);
      const reciprocal = Math.floor(2 ** 24 / count);
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = Math.floor(count / 2);
        for (let row = y * factor; row < bottom; row += 1) {
          const start = 3 * row * image.width + channel;
          for (let at = start + 3 * x * factor; at < start + 3 * right; at += 3) sum += image.rgb[at];
        }
        rgb[3 * (y * width + x) + channel] = Math.floor((sum * reciprocal) / 2 ** 24);
      }
    }
  }
  return { rgb, width, height };
}
