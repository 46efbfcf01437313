/* The interface of the CUDA kernels: plain C, caller-owned device memory, a stream, no Python and no PyTorch.
 *
 * Every function launches on `stream` (a cudaStream_t; null is the default stream) and returns at once. Nothing is
 * allocated, nothing waits for the device, all can be captured in a CUDA graph. Pointers are device pointers, sizes
 * count elements unless the name says bytes, and a pointer marked "or null" switches a part off.
 *
 * T is the element type `dtype` says: float32, float16 or bfloat16, with sums in float32. C is `channels`.
 *   NHWC map   T [n][height][width][C]      (PyTorch: channels_last)
 *   NCHW map   T [n][C][height][width]      (PyTorch: contiguous)
 *   entries    T [U5][2][C], a and then b
 * Wide accesses are taken where addresses and sizes are multiples of 16 bytes, narrow ones elsewhere. */
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
    SPADE_CUDA_ERROR_LAYOUT = 4,  /* layout is not a spade_cuda_layout, or not one that this kernel takes */
    SPADE_CUDA_ERROR_SCRATCH = 5, /* scratch is null, too small, or not aligned to 16 bytes */
    SPADE_CUDA_ERROR_ALIGN = 6,   /* a pointer is not aligned to its element, or not to 16 bytes where that is asked */
    SPADE_CUDA_ERROR_LAUNCH = 7,  /* CUDA refused; spade_cuda_last_error says why */
    SPADE_CUDA_ERROR_ABSENT = 8   /* this library was built without CUDA */
} spade_cuda_status;

/* One English sentence for a status, static storage; never null. */
SPADE_CUDA_API const char* spade_cuda_status_message(int32_t status);

/* CUDA's own words for this thread's last SPADE_CUDA_ERROR_LAUNCH; never null. */
SPADE_CUDA_API const char* spade_cuda_last_error(void);

/* 1 if this library holds CUDA kernels, else 0. */
SPADE_CUDA_API int32_t spade_cuda_built(void);

typedef enum spade_cuda_dtype {
    SPADE_CUDA_FLOAT32 = 0,
    SPADE_CUDA_FLOAT16 = 1,
    SPADE_CUDA_BFLOAT16 = 2
} spade_cuda_dtype;

typedef enum spade_cuda_layout { SPADE_CUDA_NCHW = 0, SPADE_CUDA_NHWC = 1 } spade_cuda_layout;

/* ---- The plan ---- */

#define SPADE_CUDA_MAX_LEVELS 10

/* All levels of a batch of symbol maps; see spade_plan_find in spade_kernels.h for what a plan is. Positions are the
 * pixels of all levels, level by level, [n][height][width] each; at most 3 * 2^29.
 *
 * find leaves index and offsets, and in scratch what write needs. offsets tell, over all levels, how many windows
 * appear before each map: level l of map i has rows offsets[l n + i] - offsets[l n] .. offsets[l n + i + 1] - offsets[l
 * n] of the tables of level l. The caller reads them, once for all levels, makes room, and calls write; or it has the
 * room, and nothing waits. */
typedef struct spade_plan_batch {
    const uint16_t* symbols; /* [n][map_height][map_width], rows row_stride apart, values 0 .. n_symbols - 1 */
    int32_t* index;          /* [positions], out: rows of patches5 of the position's level */
    int32_t* offsets3;       /* [levels * n + 1], out */
    int32_t* offsets5;       /* [levels * n + 1], out */
    int32_t* patches3;       /* rows of k * k symbols, outside = n_symbols; out of write */
    int32_t* patches5;       /* rows of k * k rows of the level's patches3, outside = their number; out of write */
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
    int64_t first3[SPADE_CUDA_MAX_LEVELS]; /* the row of patches3 where a level's table begins */
    int64_t room3[SPADE_CUDA_MAX_LEVELS];  /* and how many rows it has; those beyond are not written, and patches5 has
                                              room3 for them */
    int64_t first5[SPADE_CUDA_MAX_LEVELS];
    int64_t room5[SPADE_CUDA_MAX_LEVELS];
} spade_plan_batch;

/* Negative: minus a status. Reads the sizes only. */
SPADE_CUDA_API int64_t spade_cuda_plan_scratch_bytes(const spade_plan_batch* plan);
SPADE_CUDA_API int32_t spade_cuda_plan_find(const spade_plan_batch* plan, void* stream);
SPADE_CUDA_API int32_t spade_cuda_plan_write(const spade_plan_batch* plan, void* stream);

/* ---- Embed and codebook ---- */

/* Several jobs, such as all norms of a generator, take one launch: `args` is the first of `count`, all of one dtype,
 * and none reads what another writes. Rows may be counted on the device: with first_row and last_row, pointers to two
 * of the plan's offsets, there are *last_row - *first_row of them, and at most `rows`. */

/* out = act(bias + sum over taps of table[tap][patches[row][tap]]). */
typedef struct spade_gather_embed {
    const void* table;      /* T [taps][symbols + 1][depth], row `symbols` of each tap zero */
    const float* bias;      /* [depth] */
    const int32_t* patches; /* [rows][taps], 0 .. symbols */
    void* out;              /* T [rows + zero_row][depth] */
    const int32_t* first_row;
    const int32_t* last_row;
    int64_t rows;
    int64_t taps;
    int64_t symbols;
    int64_t depth;
    int64_t relu;     /* 0 or 1 */
    int64_t zero_row; /* 1: the row behind the last is written too, with zeros */
    int64_t dtype;
} spade_gather_embed;

SPADE_CUDA_API int32_t spade_cuda_embed(const spade_gather_embed* args, int64_t count, void* stream);

/* entries[u] = bias + sum over taps of weight[tap] actv[patches[u][tap]]. Without `products`, gathered rows are
 * multiplied; with it, every row of actv is multiplied once per tap, and gathered rows of the products are summed. */
typedef struct spade_gather_codebook {
    const void* actv;       /* T [actv_rows][128], at a multiple of 16 bytes; the last row zero */
    const int32_t* patches; /* [rows][taps], 0 .. actv_rows - 1 */
    const void* weight;     /* T [2 C][taps * 128], a before b; with products, [taps * 2 C][128]; at a multiple of 16 */
    const float* bias;      /* [2 C] */
    void* entries;          /* T [rows][2][C] */
    float* products;        /* [actv_rows][taps * 2 C], scratch at a multiple of 16 bytes, or null */
    const int32_t* first_row;
    const int32_t* last_row;
    const int32_t* first_actv_row; /* of actv without its last */
    const int32_t* last_actv_row;
    int64_t rows;
    int64_t actv_rows;
    int64_t taps;
    int64_t channels;
    int64_t dtype;
} spade_gather_codebook;

SPADE_CUDA_API int32_t spade_cuda_codebook(const spade_gather_codebook* args, int64_t count, void* stream);

/* ---- Norms ---- */

/* Where the statistics of a norm come from, mean and 1 / sqrt(variance + epsilon), float32 [groups][C]. */
typedef enum spade_cuda_norm {
    SPADE_CUDA_NORM_GIVEN = 0,    /* they do not depend on x: running statistics, or none at all */
    SPADE_CUDA_NORM_INSTANCE = 1, /* of each image, groups = n */
    SPADE_CUDA_NORM_BATCH = 2     /* of all images, groups = 1 */
} spade_cuda_norm;

/* Bytes of scratch for any function below that takes a norm other than SPADE_CUDA_NORM_GIVEN; 0 for that one. What is
 * in it does not matter, before or after. Negative: minus a status. */
SPADE_CUDA_API int64_t spade_cuda_norm_scratch_bytes(int64_t n, int64_t pixels, int64_t channels, int64_t norm);

typedef struct spade_norm_statistics {
    const void* x; /* map of `pixels` pixels per image */
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

/* The gradient at x from the gradient g at the normalised x: dx = rstd (g - E[g] - xn E[g xn]). */
typedef struct spade_norm_backward {
    const void* x;
    const void* g;
    const float* mean; /* [groups][C] */
    const float* rstd;
    void* dx; /* may be g */
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
    const void* gamma; /* as x, but modulation_stride apart */
    const void* beta;
    float* mean; /* [groups][C]: read, or null with rstd, if given; else out */
    float* rstd;
    void* out;
    void* scratch;
    int64_t scratch_bytes;
    int64_t n;
    int64_t pixels; /* of an image: height * width */
    int64_t channels;
    int64_t modulation_stride; /* elements between two pixels (NHWC) or images (NCHW) of gamma, and of beta */
    int64_t statistics_stride; /* if given: elements between the statistics of two images, C or 0 */
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
    const float* mean; /* [groups][C], as the forward pass left or read them; null with rstd: none */
    const float* rstd;
    void* dx; /* out, as are the next two */
    void* dgamma;
    void* dbeta;
    void* scratch;
    int64_t scratch_bytes;
    int64_t n;
    int64_t pixels;
    int64_t channels;
    int64_t modulation_stride;
    int64_t gradient_stride; /* as modulation_stride, of dgamma and dbeta */
    int64_t statistics_stride;
    int64_t norm;
    int64_t leaky;
    int64_t dtype;
    int64_t layout;
} spade_modulate_dense_backward;

SPADE_CUDA_API int32_t spade_cuda_modulate_dense_backward(const spade_modulate_dense_backward* args, void* stream);

/* ---- The codebook form ---- */

/* out = act(a[index] * ((x - mean) * rstd) + b[index]), x read at (row >> shift, column >> shift). Every index is safe:
 * one that is no row of entries is taken for the last. */
typedef struct spade_modulate_codebook {
    const void* x;        /* map [n][height >> shift][width >> shift] of C channels */
    const void* entries;  /* T [U5][2][C] */
    const int32_t* index; /* [n][height][width], rows of entries */
    const float* mean;    /* [n or 1][C], or null with rstd: no normalisation */
    const float* rstd;
    void* out;                 /* map [n][height][width], the layout of x */
    int64_t rows;              /* of entries: U5 */
    int64_t statistics_stride; /* elements between the statistics of two images: C, or 0 if all share them */
    int64_t n;
    int64_t height; /* of out; even where shift is 1, as is width */
    int64_t width;
    int64_t channels;
    int64_t shift; /* 0 or 1: the x2 upsampling */
    int64_t leaky; /* 1: leaky ReLU of slope 0.2; 0: none */
    int64_t dtype;
    int64_t layout;
} spade_modulate_codebook;

SPADE_CUDA_API int32_t spade_cuda_modulate_codebook(const spade_modulate_codebook* args, void* stream);

/* The gradients of modulate_codebook, of NHWC maps. */
typedef struct spade_modulate_codebook_backward {
    const void* x;
    const void* entries;
    const int32_t* index;
    const float* mean; /* as in the forward pass */
    const float* rstd;
    const void* dy;        /* gradient of out */
    const int32_t* sorted; /* index in ascending order [n * height * width], or null: sums by atomic additions */
    const int64_t* order;  /* the pixel of each, ascending where equal; with it, sums have the same bits every time */
    void* dx;              /* gradient at x or, unscaled, at the normalised x: out */
    float* dentries;       /* [rows][2][C], out, or null: not computed */
    void* scratch;         /* if sorted */
    int64_t scratch_bytes;
    int64_t rows; /* of entries: U5 */
    int64_t statistics_stride;
    int64_t n;
    int64_t height;
    int64_t width;
    int64_t channels;
    int64_t shift;
    int64_t leaky;
    int64_t unscaled; /* 1: leave rstd out of dx, for spade_cuda_norm_backward */
    int64_t dtype;
} spade_modulate_codebook_backward;

SPADE_CUDA_API int64_t spade_cuda_modulate_codebook_backward_scratch_bytes(int64_t n, int64_t height, int64_t width,
                                                                           int64_t channels);
SPADE_CUDA_API int32_t spade_cuda_modulate_codebook_backward(const spade_modulate_codebook_backward* args,
                                                             void* stream);

/* ---- The image ---- */

/* values = tanh(bias + conv(lrelu(x + constant))), 3 x 3 with zeros outside; pixels = floor(127.5 (values + 1)). */
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
