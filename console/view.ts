/** What the address bar holds, so that a view can be sent to a colleague. */
export interface View {
  patient: string;
  detail: '' | 'accepted' | 'stored' | 'rejected' | 'held' | 'erased' | 'inFlight';
  filter: string;
  sort: string;
  descending: boolean;
}

const details: ReadonlyArray<View['detail']> = ['accepted', 'stored', 'rejected', 'held', 'erased', 'inFlight'];

export function readView(): View {
  const hash = new URLSearchParams(location.hash.slice(1));
  const detail = details.find((name) => name === hash.get('detail')) ?? '';
  return { patient: hash.get('patient') ?? '', detail, filter: hash.get('filter') ?? '', sort: hash.get('sort') ?? 'connected', descending: hash.get('order') === 'desc' };
}

export function writeView(view: View): void {
  const hash = new URLSearchParams();
  if (view.patient !== '') hash.set('patient', view.patient);
  if (view.detail !== '') hash.set('detail', view.detail);
  if (view.filter !== '') hash.set('filter', view.filter);
  if (view.sort !== 'connected') hash.set('sort', view.sort);
  if (view.descending) hash.set('order', 'desc');
  history.replaceState(null, '', `#${hash.toString()}`);
}
