namespace Sidecar.Agent.Stack;

/// <summary>Looks at something in the background, at intervals, and keeps the last view; readers never wait.</summary>
/// <typeparam name="T">The view; immutable.</typeparam>
internal sealed class BackgroundLook<T> : IDisposable
    where T : class
{
    private readonly CancellationTokenSource _stopping = new();
    private readonly Func<T?, CancellationToken, Task<T>> _look;
    private readonly TimeSpan _interval;
    private volatile T? _view;
    private Task _task = Task.CompletedTask;

    /// <summary>Nothing is looked at before <see cref="Start"/> or <see cref="LookAsync"/>.</summary>
    /// <param name="interval">From the end of a look to the next one.</param>
    /// <param name="look">Makes the next view from the last one; does not throw, and ends in bounded time.</param>
    public BackgroundLook(TimeSpan interval, Func<T?, CancellationToken, Task<T>> look)
    {
        _interval = interval;
        _look = look;
    }

    /// <summary>The last view; null before the first.</summary>
    public T? View => _view;

    public void Start() => _task = Task.Run(RunAsync);

    /// <summary>Looks once, for who cannot wait for the background.</summary>
    public async Task LookAsync() => _view = await _look(_view, _stopping.Token).ConfigureAwait(false);

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
                await LookAsync().ConfigureAwait(false);
                await Task.Delay(_interval, _stopping.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // told to stop
        }
    }
}
