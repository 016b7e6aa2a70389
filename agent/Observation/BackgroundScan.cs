namespace Sidecar.Agent.Observation;

/// <summary>Scans something in the background, at intervals, and keeps the last view; readers never wait.</summary>
/// <typeparam name="T">The view; immutable.</typeparam>
internal sealed class BackgroundScan<T> : IDisposable
    where T : class
{
    private readonly CancellationTokenSource _stopping = new();
    private readonly Func<T?, CancellationToken, Task<T>> _scan;
    private readonly TimeSpan _interval;
    private volatile T? _view;
    private Task _task = Task.CompletedTask;

    /// <summary>Nothing is looked at before <see cref="Start"/> or <see cref="ScanAsync"/>.</summary>
    /// <param name="interval">From the end of a scan to the next one.</param>
    /// <param name="scan">Makes the next view from the last one; does not throw, and ends in bounded time.</param>
    public BackgroundScan(TimeSpan interval, Func<T?, CancellationToken, Task<T>> scan)
    {
        _interval = interval;
        _scan = scan;
    }

    /// <summary>The last view; null before the first.</summary>
    public T? View => _view;

    public void Start() => _task = Task.Run(RunAsync);

    /// <summary>Scans once, for who cannot wait for the background.</summary>
    public async Task ScanAsync() => _view = await _scan(_view, _stopping.Token).ConfigureAwait(false);

    public void Dispose()
    {
        _stopping.Cancel();
        _task.Wait(TimeSpan.FromSeconds(2));
        _stopping.Dispose();
    }

    private async Task RunAsync()
    {
        try
        {
            while (!_stopping.IsCancellationRequested)
            {
                await ScanAsync().ConfigureAwait(false);
                await Task.Delay(_interval, _stopping.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // told to stop
        }
    }
}
