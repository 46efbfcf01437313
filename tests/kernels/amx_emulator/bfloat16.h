// The instructions of AVX512-BF16 on processors with AVX2 only, as Intel's manual defines them: denormals count as zero
// and denormal results become zero, whatever MXCSR says.
#ifndef SPADE_EMULATOR_BFLOAT16_H
#define SPADE_EMULATOR_BFLOAT16_H

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace amx_emulator {

inline __m256 flushed(__m256 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f), smallest = _mm256_set1_ps(0x1p-126f);
    const __m256 keep = _mm256_cmp_ps(_mm256_andnot_ps(sign, a), smallest, _CMP_NLT_UQ);  // NaN too
    return _mm256_and_ps(a, _mm256_or_ps(keep, sign));
}
inline __m256 even_bfloats(__m256i pairs) { return flushed(_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16))); }
inline __m256 odd_bfloats(__m256i pairs) {
    return flushed(_mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u)))));
}

// VDPBF16PS: adds the product of the odd terms, then that of the even terms; each sum is rounded once.
inline __m256 add_pairs(__m256 sum, __m256i a, __m256i b) {
    sum = flushed(_mm256_fmadd_ps(odd_bfloats(a), odd_bfloats(b), flushed(sum)));
    return flushed(_mm256_fmadd_ps(even_bfloats(a), even_bfloats(b), sum));
}

// VCVTNEPS2BF16: rounds eight float32 to nearest even, in the upper halves of their lanes.
inline __m256i rounded_to_bfloats(__m256 a) {
    const __m256i bits = _mm256_castps_si256(flushed(a));
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(up, quiet, nan);
}

// The upper halves of the lanes of two registers, one after the other.
inline __m256i upper_halves(__m256i first, __m256i second) {
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(first, 16), _mm256_srli_epi32(second, 16));
    return _mm256_permute4x64_epi64(packed, 0xd8);
}

}  // namespace amx_emulator

#endif
