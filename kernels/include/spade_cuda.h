/* The interface of the CUDA kernels: plain C, device memory that the caller owns, a stream; no Python, no PyTorch.
 *
 * Every function launches on `stream` (a cudaStream_t; null is the default stream) and returns at once. No function
 * allocates or waits for the device, so a CUDA graph can capture every call. Pointers are device pointers. Sizes and
 * strides count elements unless the name says bytes. A pointer marked "or null" is optional.
 *
 * T is the element type that `dtype` names: float32, float16 or bfloat16. Sums are float32. C is `channels`.
 *   NHWC map   T [n][height][width][C]      (PyTorch: channels_last)
 *   NCHW map   T [n][C][height][width]      (PyTorch: contiguous)
 *   entries    T [U5][2][C], a and then b
 * Kernels use 16-byte accesses where addresses and sizes are multiples of 16 bytes, and narrow accesses elsewhere. */
#ifndef SPADE_CUDA_H
#define SPADE_CUDA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SPADE_CUDA_API __attribute__((visibility("default")))
#else
#define SPADE_CUDA_API
#endif

typedef enum spade_cuda_status {
    SPADE_CUDA_OK = 0,
    SPADE_CUDA_ERROR_NULL = 1,    /* a required pointer, or one of a pair, is null */
    SPADE_CUDA_ERROR_SIZE = 2,    /* a size is below 1, above its limit, or does not fit another */
    SPADE_CUDA_ERROR_DTYPE = 3,   /* dtype is not a spade_cuda_dtype */
    SPADE_CUDA_ERROR_LAYOUT = 4,  /* layout is not a spade_cuda_layout, or this kernel does not take it */
    SPADE_CUDA_ERROR_SCRATCH = 5, /* scratch is null, too small, or not aligned to 16 bytes */
    SPADE_CUDA_ERROR_ALIGN = 6,   /* a pointer is not aligned to its element, or to 16 bytes where the field says so */
    SPADE_CUDA_ERROR_LAUNCH = 7,  /* CUDA refused; spade_cuda_last_error says why */
    SPADE_CUDA_ERROR_ABSENT = 8   /* this library was built without CUDA */
} spade_cuda_status;

/* One English sentence for a status, in static storage; never null. */
SPADE_CUDA_API const char* spade_cuda_status_message(int32_t status);

/* CUDA's description of this thread's last SPADE_CUDA_ERROR_LAUNCH; never null. */
SPADE_CUDA_API const char* spade_cuda_last_error(void);

/* 1 if this library holds CUDA kernels; 0 if it was built without CUDA. */
SPADE_CUDA_API int32_t spade_cuda_built(void);

/* Makes `device` the current device of the calling thread. Every function below launches on the current device, and its
 * pointers and its stream must be that device's. Returns the device that was current before; negative: minus a
 * status. */
SPADE_CUDA_API int64_t spade_cuda_use_device(int64_t device);

typedef enum spade_cuda_dtype {
    SPADE_CUDA_FLOAT32 = 0,
    SPADE_CUDA_FLOAT16 = 1,
    SPADE_CUDA_BFLOAT16 = 2
} spade_cuda_dtype;

typedef enum spade_cuda_layout { SPADE_CUDA_NCHW = 0, SPADE_CUDA_NHWC = 1 } spade_cuda_layout;

/* ---- The plan ---- */

#define SPADE_CUDA_MAX_LEVELS 10

/* The plan of a batch of symbol maps, all levels at once; spade_plan in spade_kernels.h says what a plan is.
 * Positions are the pixels of all levels, level by level, each level [n][height][width]; at most 3 * 2^29.
 *
 * find writes index, offsets3 and offsets5, and leaves the input of write in scratch. In both arrays offsets[l n + i]
 * is the number of distinct windows, over all levels, before map i of level l. So map i of level l owns the rows from
 * offsets[l n + i] - offsets[l n] up to, but not including, offsets[l n + i + 1] - offsets[l n] of the table of level
 * l. write fills the tables. The caller either reads the offsets, allocates tables of that size and calls write; or
 * calls write at once with tables that are large enough, without waiting for the device. */
typedef struct spade_plan_batch {
    const uint16_t* symbols; /* [n][map_height][map_width], rows row_stride apart, values 0 .. n_symbols - 1 */
    int32_t* index;          /* [positions], out of find: rows of patches5 of the position's level */
    int32_t* offsets3;       /* [levels * n + 1], out of find: counts of distinct windows of symbols */
    int32_t* offsets5;       /* [levels * n + 1], out of find: counts of distinct windows of rows of patches3 */
    int32_t* patches3;       /* [rows][k * k], out of write: symbols; n_symbols stands for outside the image */
    int32_t* patches5;       /* [rows][k * k], out of write: rows of the level's patches3; their number: outside */
    void* scratch;
    int64_t scratch_bytes;
    int64_t levels;
    int64_t n;
    int64_t map_height;
    int64_t map_width;
    int64_t row_stride;
    int64_t n_symbols;
    int64_t kernel_size; /* k: 1, 3 or 5 */
    int64_t height[SPADE_CUDA_MAX_LEVELS];
    int64_t width[SPADE_CUDA_MAX_LEVELS];
    int64_t first3[SPADE_CUDA_MAX_LEVELS]; /* the row of patches3 where the level's table begins */
    int64_t room3[SPADE_CUDA_MAX_LEVELS];  /* rows of that table. write drops further rows; patches5 then holds room3
                                              in place of their numbers */
    int64_t first5[SPADE_CUDA_MAX_LEVELS]; /* the same for patches5 */
    int64_t room5[SPADE_CUDA_MAX_LEVELS];
} spade_plan_batch;

/* Bytes of scratch for find and write; negative: minus a status. Reads only the sizes of the plan. */
SPADE_CUDA_API int64_t spade_cuda_plan_scratch_bytes(const spade_plan_batch* plan);
SPADE_CUDA_API int32_t spade_cuda_plan_find(const spade_plan_batch* plan, void* stream);
SPADE_CUDA_API int32_t spade_cuda_plan_write(const spade_plan_batch* plan, void* stream);

/* ---- Embed and codebook ---- */

/* One launch runs several problems, such as the codebooks of all norms of a generator. `args` points to `count`
 * problems of one dtype; no problem may read what another writes. The number of rows of a problem may be known on the
 * device only: if first_row and last_row point to two of the plan's offsets, there are *last_row - *first_row rows, at
 * most `rows`. If both are null there are `rows` rows. */

/* out[row] = act(bias + sum over taps of table[tap][patches[row][tap]]). */
typedef struct spade_gather_embed {
    const void* table;      /* T [taps][symbols + 1][depth]; row `symbols` of each tap is zero */
    const float* bias;      /* [depth] */
    const int32_t* patches; /* [rows][taps], 0 .. symbols */
    void* out;              /* T [rows + zero_row][depth] */
    const int32_t* first_row;
    const int32_t* last_row;
    int64_t rows;
    int64_t taps;
    int64_t symbols;
    int64_t depth;
    int64_t relu;     /* 1: act is ReLU; 0: none */
    int64_t zero_row; /* 1: also write a row of zeros behind the last row; 0: do not */
    int64_t dtype;
} spade_gather_embed;

SPADE_CUDA_API int32_t spade_cuda_embed(const spade_gather_embed* args, int64_t count, void* stream);

/* entries[u] = bias + sum over taps of weight[tap] actv[patches[u][tap]]. Without `products` the kernel multiplies
 * gathered rows of actv. With `products` (the per-tap form) it multiplies every row of actv once per tap, and then sums
 * gathered rows of the products. */
typedef struct spade_gather_codebook {
    const void* actv;       /* T [actv_rows][128], at a multiple of 16 bytes; the last row is zero */
    const int32_t* patches; /* [rows][taps], 0 .. actv_rows - 1 */
    const void* weight;     /* T [2 C][taps * 128], a before b; per tap [taps * 2 C][128]; at a multiple of 16 bytes */
    const float* bias;      /* [2 C] */
    void* entries;          /* T [rows][2][C] */
    float* products;        /* [actv_rows][taps * 2 C], scratch of the per-tap form, at a multiple of 16, or null */
    const int32_t* first_row;
    const int32_t* last_row;
    const int32_t* first_actv_row; /* as first_row and last_row, for the rows of actv before its last row */
    const int32_t* last_actv_row;
    int64_t rows;
    int64_t actv_rows;
    int64_t taps;
    int64_t channels;
    int64_t dtype;
} spade_gather_codebook;

SPADE_CUDA_API int32_t spade_cuda_codebook(const spade_gather_codebook* args, int64_t count, void* stream);

/* ---- Norms ---- */

/* Where the statistics of a norm come from: mean and rstd = 1 / sqrt(variance + epsilon), float32 [groups][C]. */
typedef enum spade_cuda_norm {
    SPADE_CUDA_NORM_GIVEN = 0,    /* the caller gives them, such as running statistics, or there are none */
    SPADE_CUDA_NORM_INSTANCE = 1, /* from each image of x, groups = n */
    SPADE_CUDA_NORM_BATCH = 2     /* from all images of x, groups = 1 */
} spade_cuda_norm;

/* Bytes of scratch for every function below that takes a norm; 0 for SPADE_CUDA_NORM_GIVEN. Negative: minus a status.
 * Scratch need not be initialised, and holds nothing for a later call. */
SPADE_CUDA_API int64_t spade_cuda_norm_scratch_bytes(int64_t n, int64_t pixels, int64_t channels, int64_t norm);

typedef struct spade_norm_statistics {
    const void* x; /* map of `pixels` = height * width pixels per image */
    float* mean;   /* [groups][C], out */
    float* rstd;
    void* scratch;
    int64_t scratch_bytes;
    int64_t n;
    int64_t pixels;
    int64_t channels;
    int64_t norm; /* instance or batch */
    double epsilon;
    int64_t dtype;
    int64_t layout;
} spade_norm_statistics;

SPADE_CUDA_API int32_t spade_cuda_norm_statistics(const spade_norm_statistics* args, void* stream);

/* The gradient at x from the gradient g at the normalised x, xn: dx = rstd (g - E[g] - xn E[g xn]), with the means E
 * over the pixels of a group. */
typedef struct spade_norm_backward {
    const void* x;
    const void* g;
    const float* mean; /* [groups][C] */
    const float* rstd;
    void* dx; /* out; may be the memory of g */
    void* scratch;
    int64_t scratch_bytes;
    int64_t n;
    int64_t pixels;
    int64_t channels;
    int64_t norm; /* instance or batch */
    int64_t dtype;
    int64_t layout;
} spade_norm_backward;

SPADE_CUDA_API int32_t spade_cuda_norm_backward(const spade_norm_backward* args, void* stream);

/* ---- The dense form ---- */

/* out = act((x - mean) * rstd * (1 + gamma) + beta). */
typedef struct spade_modulate_dense {
    const void* x;
    const void* gamma; /* shape and layout of x, with modulation_stride */
    const void* beta;
    float* mean; /* [groups][C]. Norm given: in, or null together with rstd. Other norms: out */
    float* rstd;
    void* out;
    void* scratch;
    int64_t scratch_bytes;
    int64_t n;
    int64_t pixels; /* of an image: height * width */
    int64_t channels;
    int64_t modulation_stride; /* gamma and beta: elements between two pixels (NHWC) or two images (NCHW) */
    int64_t statistics_stride; /* norm given: elements between the statistics of two images: C, or 0: shared */
    int64_t norm;
    double epsilon;
    int64_t leaky; /* 1: leaky ReLU of slope 0.2; 0: none */
    int64_t dtype;
    int64_t layout;
} spade_modulate_dense;

SPADE_CUDA_API int32_t spade_cuda_modulate_dense(const spade_modulate_dense* args, void* stream);

typedef struct spade_modulate_dense_backward {
    const void* x;
    const void* gamma;
    const void* beta;
    const void* dy;    /* gradient of out */
    const float* mean; /* [groups][C], the statistics of the forward pass; null together with rstd: none */
    const float* rstd;
    void* dx;     /* out */
    void* dgamma; /* out */
    void* dbeta;  /* out */
    void* scratch;
    int64_t scratch_bytes;
    int64_t n;
    int64_t pixels;
    int64_t channels;
    int64_t modulation_stride;
    int64_t gradient_stride; /* as modulation_stride, for dgamma and dbeta */
    int64_t statistics_stride;
    int64_t norm;
    int64_t leaky;
    int64_t dtype;
    int64_t layout;
} spade_modulate_dense_backward;

SPADE_CUDA_API int32_t spade_cuda_modulate_dense_backward(const spade_modulate_dense_backward* args, void* stream);

/* ---- The codebook form ---- */

/* out = act(a[index] * ((x - mean) * rstd) + b[index]), x read at (row >> shift, column >> shift). An index that is no
 * row of entries stands for the last row, here and in the gradients, so every index is safe. */
typedef struct spade_modulate_codebook {
    const void* x;        /* map [n][height >> shift][width >> shift] of C channels */
    const void* entries;  /* T [U5][2][C] */
    const int32_t* index; /* [n][height][width], rows of entries */
    const float* mean;    /* [n or 1][C]; null together with rstd: no normalisation */
    const float* rstd;
    void* out;                 /* map [n][height][width], the layout of x */
    int64_t rows;              /* of entries: U5 */
    int64_t statistics_stride; /* elements between the statistics of two images: C, or 0 if all share them */
    int64_t n;
    int64_t height; /* of out; height and width are even if shift is 1 */
    int64_t width;
    int64_t channels;
    int64_t shift; /* 1: x is upsampled by 2 where it is read; 0: x has the size of out */
    int64_t leaky; /* 1: leaky ReLU of slope 0.2; 0: none */
    int64_t dtype;
    int64_t layout;
} spade_modulate_codebook;

SPADE_CUDA_API int32_t spade_cuda_modulate_codebook(const spade_modulate_codebook* args, void* stream);

/* The gradients of modulate_codebook. All maps are NHWC. */
typedef struct spade_modulate_codebook_backward {
    const void* x;
    const void* entries;
    const int32_t* index;
    const float* mean; /* as in the forward pass */
    const float* rstd;
    const void* dy;        /* gradient of out */
    const int32_t* sorted; /* [n * height * width], the index in ascending order of unsigned numbers, so that indices
                              that are no row come last; sums then have the same bits every time. Null: sums by atomic
                              additions, in any order */
    const int64_t* order;  /* the pixel of each element of sorted, ascending where elements are equal; or null */
    void* dx;              /* out, shape of x: the gradient at x or, if unscaled, at the normalised x */
    float* dentries;       /* [rows][2][C], out, or null: not computed */
    void* scratch;         /* needed with sorted */
    int64_t scratch_bytes;
    int64_t rows; /* of entries: U5 */
    int64_t statistics_stride;
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t channels;
    int64_t shift;
    int64_t leaky;
    int64_t unscaled; /* 1: dx is not multiplied by rstd, as spade_cuda_norm_backward takes it; 0: it is */
    int64_t dtype;
} spade_modulate_codebook_backward;

/* Bytes of scratch that the sums with `sorted` take; negative: minus a status. */
SPADE_CUDA_API int64_t spade_cuda_modulate_codebook_backward_scratch_bytes(int64_t n, int64_t height, int64_t width,
                                                                           int64_t channels);
SPADE_CUDA_API int32_t spade_cuda_modulate_codebook_backward(const spade_modulate_codebook_backward* args,
                                                             void* stream);

/* ---- The image ---- */

/* values = tanh(bias + conv(lrelu(x + constant))), a 3 x 3 conv with zeros outside the image;
 * pixels = floor(127.5 (values + 1)). */
typedef struct spade_image_conv {
    const void* x;         /* NHWC map of C channels */
    const float* constant; /* [C], or null */
    const void* weight;    /* T [3][3][3][C] */
    const float* bias;     /* [3] */
    float* values;         /* [n][3][height][width], out, or null */
    uint8_t* pixels;       /* [n][height][width][3], out, or null */
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t channels;
    int64_t dtype;
} spade_image_conv;

SPADE_CUDA_API int32_t spade_cuda_image_conv(const spade_image_conv* args, void* stream);

#ifdef __cplusplus
}
#endif

#endif
