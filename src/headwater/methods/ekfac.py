"""EK-FAC influence functions: Grosse et al. 2023, arXiv:2308.03296; Mlodozieniec et al. 2025,
arXiv:2410.13850."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.curvature.ekfac import GROUP
from headwater.curvature.kfac import Curvature
from headwater.curvature.stored import PART, Squares, ekfac_of, in_order_of_content
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.errors import check_at_least
from headwater.examples import Examples
from headwater.families.gradients import Passes
from headwater.families.influence import Influence


@dataclass(frozen=True, kw_only=True)
class EKFAC(Influence):
    """τ(q, i) = (1/n) ∇m(q)ᵀ (F + λI)⁻¹ ∇ℓ(i),   F ≈ ⊕_layers (Q_B ⊗ Q_A) diag(E[(Q_Bᵀ G Q_A)²]) (Q_B ⊗
    Q_A)ᵀ.

    K-FAC's eigenvectors with eigenvalues measured in a second pass over other draws, `group` gradients at a
    time. The paper's plots labelled K-FAC were made with it."""

    title: ClassVar[str] = "EK-FAC influence"

    group: int = GROUP

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, self, "group")

    def curvature(self, model: Denoiser, train: Examples, store: FeatureStore) -> Curvature:
        basis = super().curvature(model, train, store)
        ordered, size = in_order_of_content(train), store.rows_together(PART)
        squares = Squares(model, ordered, self.outer_products(1), basis, self.group, size)
        return ekfac_of(squares, store)

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int:
        """Bytes of K-FAC, and the corrected eigenvalues."""
        return super().bytes_kept(n, q, parameters, factors) + 8 * parameters

    def passes(self, T: int) -> Passes:
        """Passes of K-FAC, and of a second estimate."""
        passes = super().passes(T)
        return passes._replace(train=passes.train + self.curvature_timesteps)
