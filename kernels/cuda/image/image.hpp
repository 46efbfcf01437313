// The image: the generator's last conv, with the activation before it and tanh and the conversion to bytes after it.
//
//   values[o] = tanh(bias[o] + sum over taps t, channels c of weight[o][t][c] lrelu(x[p + t][c] + constant[c]))
//   pixels[o] = floor(127.5 (values[o] + 1)),    3 x 3 taps, zeros outside the image
//
// Layout: x NHWC, weight [3][3][3][C], values NCHW, pixels NHWC. For float16 and bfloat16 a block takes a tile of 16 x
// 16 pixels and holds 64 channels at a time, with the neighbours of the tile, in shared memory. A warp computes two
// lines of 16 pixels as products of 16 pixels x 8 outputs, of which three are used. In all other cases a thread
// computes one pixel.
//
// Bytes, E = sizeof(T), per pixel: reads 1.27 E C, writes 15. Operations: 54 C.
//
// Fused: adding the constant that the last block left out, the activation, tanh and the conversion to bytes. Each of
// these would read or write a whole map on its own, and a library's conv of three outputs pads them to 32 or more.
#ifndef SPADE_CUDA_IMAGE_HPP
#define SPADE_CUDA_IMAGE_HPP

#include "cuda/device/tensor_core.hpp"
#include "cuda/device/vectors.hpp"

namespace spade {

constexpr int kImageTile = 16;              // pixels down and across
constexpr int kImageHalo = kImageTile + 2;  // pixels of a side with the neighbours
constexpr int kImageChannels = 64;          // channels in shared memory at a time
constexpr int kImageChunks = kImageChannels / 8;
constexpr int kImageSteps = kImageChannels / 16;

template <typename T>
struct ImageConv {
    const T* x;
    const float* constant;  // [C], or null
    const T* weight;
    const float* bias;  // [3]
    float* values;      // or null
    uint8_t* pixels;    // or null
    int32_t n, height, width, channels;
    int32_t tiles;  // the tiles of all images
};

struct ImageTile {
    int32_t image, row, column;
};

__host__ __device__ inline int32_t image_tiles(int32_t size) { return (size + kImageTile - 1) / kImageTile; }

__host__ __device__ inline ImageTile image_tile_at(int32_t height, int32_t width, int32_t tile) {
    const int32_t across = image_tiles(width), line = tile / across, down = image_tiles(height);
    return {line / down, line % down * kImageTile, (tile - line * across) * kImageTile};
}

// The place of eight channels of a pixel of the tile. Pixels are 16 bytes further apart than their channels need, so
// that neighbours use different banks; and all reads of a thread are at fixed distances from one address.
constexpr int kImagePitch = kImageChannels + 8;
__host__ __device__ inline int place_image(int pixel, int chunk) { return pixel * kImagePitch + chunk * 8; }

template <typename T>
__device__ __forceinline__ void store_image(const ImageConv<T>& of, int32_t image, int32_t row, int32_t column,
                                            int32_t output, float sum) {
    const float value = tanhf(sum + of.bias[output]);
    const int64_t size = static_cast<int64_t>(of.height) * of.width,
                  pixel = static_cast<int64_t>(row) * of.width + column;
    if (of.values != nullptr) of.values[(static_cast<int64_t>(image) * 3 + output) * size + pixel] = value;
    // The published models truncate: 0.999 of a grey level is still 0.
    const float level = fminf(fmaxf((value + 1) * 127.5f, 0.0f), 255.0f);
    if (of.pixels != nullptr) of.pixels[(image * size + pixel) * 3 + output] = static_cast<uint8_t>(level);
}

// ---- Tensor cores ----

template <typename T>
struct alignas(128) ImageShared {
    T x[kImageHalo * kImageHalo * kImagePitch];
    Vector<uint32_t, 2> weights[9][kImageSteps][32];
};

// Fills shared.x with lrelu(x + constant) of 64 channels of a tile and its neighbours; zeros outside the image and
// beyond the last channel.
template <typename T>
__device__ __forceinline__ void fill_image_tile(const ImageConv<T>& of, const ImageTile& at, int32_t first,
                                                ImageShared<T>& shared) {
    const int chunk = static_cast<int>(threadIdx.x) % kImageChunks;
    const int32_t channel = first + chunk * 8;
    const bool present = channel < of.channels;
    float constant[8] = {};
    for (int i = 0; present && of.constant != nullptr && i < 8; ++i) constant[i] = of.constant[channel + i];
#pragma unroll 4
    for (int pixel = static_cast<int>(threadIdx.x) / kImageChunks; pixel < kImageHalo * kImageHalo;
         pixel += static_cast<int>(blockDim.x) / kImageChunks) {
        const int32_t row = at.row + pixel / kImageHalo - 1, column = at.column + pixel % kImageHalo - 1;
        float values[8] = {};
        if (present && row >= 0 && row < of.height && column >= 0 && column < of.width) {
            const int64_t place = (static_cast<int64_t>(at.image) * of.height + row) * of.width + column;
            const Vector<T, 8> x = load<T, 8>(of.x + place * of.channels + channel);
#pragma unroll
            for (int i = 0; i < 8; ++i) values[i] = leaky(to_float(x.values[i]) + constant[i]);
        }
        store<T, 8>(shared.x + place_image(pixel, chunk), values);
    }
}

// Loads the weights of 64 channels in the order in which the lanes of a product read them. Outputs 3 to 7 are zero.
template <typename T>
__device__ __forceinline__ void load_image_weights(const ImageConv<T>& of, int32_t first, ImageShared<T>& shared) {
    for (int item = static_cast<int>(threadIdx.x); item < 9 * kImageSteps * 32; item += static_cast<int>(blockDim.x)) {
        const int lane = item % 32, step = item / 32 % kImageSteps, tap = item / 32 / kImageSteps, output = lane / 4;
        uint32_t pair[2] = {};
        for (int half = 0; half < 2; ++half) {
            const int32_t channel = first + step * 16 + half * 8 + lane % 4 * 2;
            if (output < 3 && channel < of.channels)
                pair[half] = *reinterpret_cast<const uint32_t*>(
                    of.weight + (static_cast<int64_t>(output) * 9 + tap) * of.channels + channel);
        }
        shared.weights[tap][step][lane] = {{pair[0], pair[1]}};
    }
}

// sums += the products of two lines of 16 pixels. Both lines need most lines of the tile, and each is read only once.
template <typename T>
__device__ __forceinline__ void multiply_image_tile(const ImageShared<T>& shared, float (&sums)[2][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const T* from = shared.x + place_image(warp * 2 * kImageHalo + lane % 16, lane / 16);
#pragma unroll
    for (int down = 0; down < 4; ++down)
#pragma unroll
        for (int right = 0; right < 3; ++right)
#pragma unroll
            for (int step = 0; step < kImageSteps; ++step) {
                uint32_t a[4];
                load_matrices(a, from + place_image(down * kImageHalo + right, step * 2));
#pragma unroll
                for (int line = 0; line < 2; ++line) {
                    if (down - line < 0 || down - line > 2) continue;
                    const Vector<uint32_t, 2> b = shared.weights[(down - line) * 3 + right][step][lane];
                    multiply_add<T>(sums[line], a, b.values[0], b.values[1]);
                }
            }
}

// Stores the sums of a lane: two outputs of a pixel, and of the pixel eight further. Outputs 3 to 7 are padding and are
// discarded.
template <typename T>
__device__ __forceinline__ void store_image_tile(const ImageConv<T>& of, const ImageTile& at,
                                                 const float (&sums)[2][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int32_t row = at.row + warp * 2 + i / 4, column = at.column + lane / 4 + i / 2 % 2 * 8;
        const int32_t output = lane % 4 * 2 + i % 2;
        if (row < of.height && column < of.width && output < 3)
            store_image(of, at.image, row, column, output, sums[i / 4][i % 4]);
    }
}

template <typename T>
__device__ __forceinline__ void image_half(const ImageConv<T>& of, ImageShared<T>& shared) {
    int32_t loaded = -1;  // the first channel of the loaded weights: up to 64 channels load once for all tiles
    for (int32_t tile = blockIdx.x; tile < of.tiles; tile += static_cast<int32_t>(gridDim.x)) {
        const ImageTile at = image_tile_at(of.height, of.width, tile);
        float sums[2][4] = {};
        for (int32_t first = 0; first < of.channels; first += kImageChannels) {
            __syncthreads();  // all threads have read the old contents of shared memory
            if (first != loaded) load_image_weights(of, first, shared);
            loaded = first;
            fill_image_tile(of, at, first, shared);
            __syncthreads();
            multiply_image_tile(shared, sums);
        }
        store_image_tile(of, at, sums);
    }
}

// ---- One pixel for each thread ----

template <typename T>
__device__ __forceinline__ void image_any(const ImageConv<T>& of) {
    const int32_t size = of.height * of.width, pixels = of.n * size;
    for (int32_t pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += gridDim.x * blockDim.x) {
        const int32_t image = pixel / size, row = (pixel - image * size) / of.width;
        const int32_t column = pixel - image * size - row * of.width;
        float sums[3] = {};
        for (int tap = 0; tap < 9; ++tap) {
            const int32_t down = row + tap / 3 - 1, right = column + tap % 3 - 1;
            if (down < 0 || down >= of.height || right < 0 || right >= of.width) continue;
            const T* x = of.x + ((static_cast<int64_t>(image) * of.height + down) * of.width + right) * of.channels;
            for (int32_t channel = 0; channel < of.channels; ++channel) {
                const float constant = of.constant != nullptr ? of.constant[channel] : 0.0f;
                const float value = to_float(from_float<T>(leaky(to_float(x[channel]) + constant)));
                for (int output = 0; output < 3; ++output) {
                    const T* weight = of.weight + (static_cast<int64_t>(output) * 9 + tap) * of.channels + channel;
                    sums[output] = fmaf(value, to_float(*weight), sums[output]);
                }
            }
        }
        for (int output = 0; output < 3; ++output) store_image(of, image, row, column, output, sums[output]);
    }
}

}  // namespace spade

#endif
